//! Runs a scenario: asks over so many connections, when requests are due, for so long.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep_until},
};

use crate::{
    arrivals::{Load, Schedule},
    client::Target,
    measure::{Measured, Observation, Recorder},
    outcome::Outcome,
    progress::Progress,
    scenario::{Plan, Step},
};

/// The clock that wakes a connection is a millisecond coarse; so much later than due is not the service's fault.
const COARSE: Duration = Duration::from_millis(2);
/// For so long after the end what was due before is still sent.
const GRACE: Duration = Duration::from_secs(1);
/// Of what was due and could not be sent even then.
const NOT_SENT: &str = "not sent in time";

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub load: Load,
    /// Connections: in a closed loop as many requests are under way, in an open one at most.
    pub clients: usize,
    /// Threads of the generator, each with its share of the connections.
    pub threads: usize,
    /// Asked but not counted, until caches, connections and plans are as they will be.
    pub warm_up: Duration,
    pub length: Duration,
    pub seed: u64,
}

/// What all connections share.
struct Run {
    plan: Plan,
    schedule: Schedule,
    target: Target,
    /// The number of the next request.
    next: AtomicUsize,
    warm_up: Duration,
    length: Duration,
    progress: Progress,
}

/// Runs the plan's requests, and waits for those that are under way at the end.
///
/// # Errors
/// When a thread of the generator failed.
pub fn run(target: &Target, plan: Plan, settings: &Settings) -> Result<Measured, String> {
    let Settings { load, warm_up, length, seed, .. } = *settings;
    let schedule = Schedule::new(load, warm_up, length, seed);
    let run = Arc::new(Run {
        plan,
        schedule,
        target: target.clone(),
        next: AtomicUsize::new(0),
        warm_up,
        length,
        progress: Progress::new(warm_up + length),
    });
    let threads = settings.threads.clamp(1, settings.clients.max(1));
    let started = Instant::now();
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let run = Arc::clone(&run);
            let clients = (settings.clients + threads - 1 - number) / threads;
            thread::spawn(move || drive(&run, clients, started))
        })
        .collect();
    let mut recorder = Recorder::new(length);
    for thread in running {
        let part = thread.join().map_err(|_| "a thread of the load generator failed")?;
        recorder.add(&part.map_err(|error| format!("a thread of the load generator failed: {error}"))?);
    }
    run.progress.finish();
    run.record_unsent(&mut recorder);
    Ok(recorder.measured())
}

impl Run {
    /// What was due and not sent, because the service had not answered what was: whoever leaves this out sees a service that hangs
    /// as one that is asked nothing.
    fn record_unsent(&self, recorder: &mut Recorder) {
        if !self.schedule.is_open() {
            return;
        }
        let from = self.next.load(Ordering::Relaxed);
        for due in (from..).map_while(|number| self.schedule.due(number)) {
            if let Some(at) = due.checked_sub(self.warm_up) {
                let waited = self.length.saturating_sub(at);
                let outcome = Outcome::Failed(NOT_SENT);
                recorder.record(&Observation {
                    operation: NOT_SENT,
                    outcome,
                    latency: waited,
                    service: Duration::ZERO,
                    bytes: 0,
                    at,
                });
            }
        }
    }
}

/// One thread's share of the connections.
fn drive(run: &Arc<Run>, clients: usize, started: Instant) -> std::io::Result<Recorder> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let recorder = Rc::new(RefCell::new(Recorder::new(run.length)));
    let mut asking = JoinSet::new();
    LocalSet::new().block_on(&runtime, async {
        for _ in 0..clients {
            asking.spawn_local(ask_in_turn(Arc::clone(run), Rc::clone(&recorder), started));
        }
        while let Some(done) = asking.join_next().await {
            done.map_err(std::io::Error::other)?;
        }
        Ok(recorder.replace(Recorder::new(run.length)))
    })
}

async fn ask_in_turn(run: Arc<Run>, recorder: Rc<RefCell<Recorder>>, started: Instant) {
    let mut connection = run.target.connection();
    let end = run.warm_up + run.length + if run.schedule.is_open() { GRACE } else { Duration::ZERO };
    while started.elapsed() < end {
        let number = run.next.fetch_add(1, Ordering::Relaxed);
        let Some(due) = run.schedule.due(number) else { return };
        let Step { operation, call, expected } = run.plan.step(number);
        let due = started + due;
        sleep_until(due).await;
        let sent = Instant::now();
        // Who comes late because every connection was busy has waited for the service.
        let is_late = run.schedule.is_open() && sent - due > COARSE;
        let since = if is_late { due } else { sent };
        let answer = connection.ask(&call).await;
        let done = Instant::now();
        let outcome = Outcome::of(expected, &answer);
        let bytes = answer.map_or(0, |answer| answer.body.len());
        run.progress.done(&outcome);
        if let Some(at) = (since - started).checked_sub(run.warm_up) {
            recorder.borrow_mut().record(&Observation {
                operation,
                outcome,
                latency: done - since,
                service: done - sent,
                bytes,
                at,
            });
        }
    }
}
