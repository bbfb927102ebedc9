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
    task::LocalSet,
    time::{Instant, sleep_until},
};

use crate::{
    arrivals::{Load, Schedule},
    client::Target,
    measure::{Measured, Observation, Outcome, Recorder},
    progress::Progress,
    scenario::{Plan, Step},
};

/// How an answer begins that found nothing.
const NOTHING_FOUND: &[u8] = b"{\"data\":[]";

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
    whole: Duration,
    progress: Progress,
}

/// Runs the plan's requests, and waits for those that are under way at the end.
///
/// # Errors
/// When a thread of the generator failed.
pub fn run(target: &Target, plan: Plan, settings: &Settings) -> Result<Measured, String> {
    let whole = settings.warm_up + settings.length;
    let schedule = Schedule::new(settings.load, whole, settings.seed);
    let run = Arc::new(Run {
        plan,
        schedule,
        target: target.clone(),
        next: AtomicUsize::new(0),
        warm_up: settings.warm_up,
        whole,
        progress: Progress::new(whole),
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
    let mut recorder = Recorder::new();
    for thread in running {
        let part = thread.join().map_err(|_| "a thread of the load generator failed")?;
        recorder
            .add(&part.map_err(|error| format!("a thread of the load generator did not start: {error}"))?);
    }
    run.progress.finish();
    Ok(recorder.measured(settings.length))
}

/// One thread's share of the connections.
fn drive(run: &Arc<Run>, clients: usize, started: Instant) -> std::io::Result<Recorder> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let recorder = Rc::new(RefCell::new(Recorder::new()));
    let local = LocalSet::new();
    for _ in 0..clients {
        local.spawn_local(ask_in_turn(Arc::clone(run), Rc::clone(&recorder), started));
    }
    runtime.block_on(local);
    Ok(recorder.replace(Recorder::new()))
}

async fn ask_in_turn(run: Arc<Run>, recorder: Rc<RefCell<Recorder>>, started: Instant) {
    let mut connection = run.target.connection();
    while started.elapsed() < run.whole {
        let number = run.next.fetch_add(1, Ordering::Relaxed);
        let Some(due) = run.schedule.due(number) else { return };
        let Step { operation, call, finds } = run.plan.step(number);
        let due = started + due;
        let came_late = due <= Instant::now();
        sleep_until(due).await;
        let sent = Instant::now();
        // The clock that wakes us is a millisecond coarse; that is not the service's fault. Who comes late because every
        // connection was busy has waited for the service.
        let since = if came_late && run.schedule.is_open() { due } else { sent };
        let answer = connection.ask(&call).await;
        let done = Instant::now();
        let (outcome, bytes) = match answer {
            Ok(answer) => {
                let empty = finds && answer.body.starts_with(NOTHING_FOUND);
                (Outcome::Answered { status: answer.status.as_u16(), empty }, answer.body.len())
            }
            Err(error) => (Outcome::Failed(error.kind()), 0),
        };
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
