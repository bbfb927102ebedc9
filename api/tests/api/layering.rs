//! The arrow of `docs/architecture.md`: which folder may name which.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A folder of `src`, and what it may import from this crate. What is not listed is refused.
const ARROW: [(&str, &[&str]); 11] = [
    ("error", &[]),
    ("domain", &["error"]),
    ("store", &["domain", "error"]),
    ("embedding", &["domain", "error", "telemetry"]),
    ("cache", &["domain", "error", "telemetry"]),
    ("service", &["store", "embedding", "cache", "domain", "error", "telemetry"]),
    ("worker", &["service", "domain", "error"]),
    // What it saves is no tenant's but the whole database: docs/adr/0022.
    ("backup", &["service", "store", "cache", "domain", "error"]),
    ("http", &["service", "domain", "error", "telemetry"]),
    // Below all that has spans.
    ("telemetry", &["domain", "error"]),
    ("config", &["backup", "cache", "domain", "embedding", "error", "http", "store", "telemetry"]),
];

/// Crates that only one folder (and the composition root) may name.
const PRIVATE_CRATES: [(&str, &[&str]); 12] = [
    ("sqlx", &["store"]),
    ("pgvector", &["store"]),
    ("actix_web", &["http"]),
    ("redis", &["cache"]),
    ("embedder", &["embedding"]),
    // A program of its own, which the command line starts.
    ("embedding_server", &["cli"]),
    // What tests of `backup` need is TLS.
    ("program", &["cli", "config", "http", "telemetry", "backup"]),
    ("clap", &["cli"]),
    ("tiktoken_rs", &["service"]),
    ("opentelemetry", &["telemetry"]),
    ("rusty_s3", &["backup"]),
    ("croner", &["backup"]),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The top folder (or file) of `src` that a file belongs to.
fn room(root: &Path, file: &Path) -> String {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Code without comments, and without what stands in quotes on one line.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let bare = |line: &str| {
        line.split('"').step_by(2).collect::<String>().split("//").next().unwrap_or_default().to_owned()
    };
    text.lines().map(bare).collect::<Vec<_>>().join("\n")
}

/// The names that follow `crate::`, alone or in braces.
fn imports(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut name) = (0, String::new());
        for character in list.chars() {
            match character {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(std::mem::take(&mut name)),
                character if depth == 0 => name.push(character),
                _ => {}
            }
        }
        names.push(name);
    }
    names
        .iter()
        .map(|name| name.trim().split("::").next().unwrap_or_default().trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_are_read_alone_and_in_braces() {
    let found =
        imports("use crate::{\n    domain::{A, limits::{B}},\n    error::C,\n};\nlet x = crate::store::D;");
    assert_eq!(found, ["domain", "error", "store"]);
}

#[test]
fn every_folder_imports_only_what_the_arrow_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let room = room(&root, &file);
        if ["cli", "lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let (_, allowed) = ARROW
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("the arrow does not know `{room}`"));
        for import in imports(&code(&file)) {
            if import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {room} must not import {import}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_of_one_folder_stays_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let (room, code) = (room(&root, &file), code(&file));
        for (name, rooms) in PRIVATE_CRATES {
            if code.contains(&format!("{name}::")) && !rooms.contains(&room.as_str()) {
                wrong.push(format!("{}: {name} belongs to {rooms:?}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short_enough_to_be_read() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "tests", "../embedder/src", "../embedding-server/src", "../program/src"] {
        for file in sources(&manifest.join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.lines().count() <= 400, "{} is too long to be read in one go", file.display());
            assert!(text.starts_with("//!"), "{} does not say what it is", file.display());
        }
    }
}
