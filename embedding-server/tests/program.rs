//! `context-embedder`, the real binary: what `context-api embedder` does as well has its tests there.

use std::{
    io::{self, BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

fn program(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_context-embedder"));
    command.env_clear().env("LOG_FORMAT", "json").env("EMBEDDING_THREADS", "1").env("HTTP_WORKERS", "1");
    command.envs(variables.iter().copied());
    command
}

fn healthcheck(address: &str) -> io::Result<Output> {
    program(&[("BIND_ADDR", address)]).arg("healthcheck").output()
}

/// Ended when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn it_serves_until_it_is_ended_and_says_whether_it_is_there() {
    let mut command = program(&[("BIND_ADDR", "127.0.0.1:0")]);
    let mut server = Server(command.stderr(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
    let ready = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|line| line["message"] == "ready")
        .expect("a line that says where it listens");
    let address = ready["address"].as_str().unwrap();
    let there = healthcheck(address).unwrap();
    assert!(there.status.success(), "{there:?}");

    drop(server);
    let away = healthcheck(address).unwrap();
    assert_eq!((away.status.code(), away.stdout.len()), (Some(1), 0), "{away:?}");
    assert!(String::from_utf8_lossy(&away.stderr).starts_with("context-embedder: "), "{away:?}");
}

#[test]
fn a_bad_value_stops_the_start_and_names_its_variable() {
    let refused = program(&[("API_KEY", "")]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(said, "context-embedder: API_KEY is empty; leave it out, or give it a value.\n");
}
