//! Calls: many at once, too many, dropped, closed. Futures are polled by hand where the moment matters, so no test
//! depends on time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use embedder::{Embedder, Error, Lane};

use crate::{EMBEDDER, sentences, start};

type Reply = Result<Vec<Vec<f32>>, Error>;

struct Unpark(thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

fn poll(future: std::pin::Pin<&mut impl Future<Output = Reply>>) -> Poll<Reply> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Waits as a runtime would: polls again only after having been woken.
pub(crate) fn wait<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> T {
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&unpark));
    loop {
        while !unpark.1.swap(false, Ordering::SeqCst) {
            thread::park();
        }
        if let Poll::Ready(reply) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return reply;
        }
    }
}

fn words(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{} number {i}", "word ".repeat(240))).collect()
}

/// Far more work than a thread does while a test goes on: queued as backfill, it keeps the worker busy.
const LOAD: usize = 2_000;

#[test]
fn no_texts_have_no_vectors() {
    assert!(EMBEDDER.embed_blocking(&[] as &[&str]).unwrap().is_empty());
}

#[test]
fn many_threads_get_their_own_vectors() {
    let texts: Vec<String> = sentences().into_iter().filter(|text| text.len() < 100).take(40).collect();
    let expected = EMBEDDER.embed_blocking(&texts).unwrap();
    thread::scope(|scope| {
        for offset in 0..16 {
            let (texts, expected) = (&texts, &expected);
            scope.spawn(move || {
                for i in 0..5 {
                    let at = (offset * 5 + i * 3) % 30;
                    let found = EMBEDDER.embed_blocking(&texts[at..at + 4]).unwrap();
                    for (found, expected) in found.iter().zip(&expected[at..at + 4]) {
                        assert!(crate::cosine(found, expected) > 0.9995);
                    }
                }
            });
        }
    });
}

#[test]
fn a_future_is_woken_when_the_vectors_are_there() {
    let future = pin!(EMBEDDER.embed(vec!["hello world".to_owned()], Lane::Backfill));
    assert_eq!(wait(future).unwrap().len(), 1);
}

#[test]
fn futures_and_handles_move_between_threads() {
    fn check<T: Send + 'static>(value: T) -> T {
        value
    }
    fn check_handle<T: Clone + Send + Sync + 'static>(_: &T) {}
    check_handle(&*EMBEDDER);
    let embedder = EMBEDDER.clone();
    drop(check(async move { embedder.embed(vec![String::new()], Lane::Query).await }));
}

#[test]
fn a_full_lane_refuses_and_the_other_one_does_not() {
    let embedder = start(1, 10);
    let mut load = pin!(embedder.embed(words(LOAD), Lane::Backfill));
    assert!(poll(load.as_mut()).is_pending(), "an idle lane takes more than it may hold");

    let mut refused = pin!(embedder.embed(words(1), Lane::Backfill));
    let Poll::Ready(Err(Error::Overloaded { waiting, max: 10 })) = poll(refused.as_mut()) else {
        panic!("not refused");
    };
    assert!(waiting > 10 && waiting <= LOAD);

    let query = pin!(embedder.embed(vec!["question".to_owned()], Lane::Query));
    assert_eq!(wait(query).unwrap().len(), 1);
    assert!(embedder.waiting(Lane::Backfill) > 10, "the query did not wait for the backfill");
    assert!(poll(load.as_mut()).is_pending());
}

#[test]
fn queries_go_before_a_backfill_that_has_begun() {
    let embedder = start(1, LOAD);
    let mut load = pin!(embedder.embed(words(LOAD), Lane::Backfill));
    assert!(poll(load.as_mut()).is_pending());
    embedder.embed_blocking(&["first"]).unwrap();
    let before = embedder.waiting(Lane::Backfill);
    for i in 0..10 {
        embedder.embed_blocking(&[format!("question {i}")]).unwrap();
    }
    // Between two questions the worker may begin one unit, of two such texts. Were they served in turn, it were more.
    let done = before - embedder.waiting(Lane::Backfill);
    assert!(done <= 11 * 4, "{done} texts of the backfill went before ten questions");
    assert!(poll(load.as_mut()).is_pending());
}

#[test]
fn a_dropped_future_takes_its_work_along() {
    let embedder = start(1, LOAD);
    {
        let mut load = pin!(embedder.embed(words(LOAD), Lane::Backfill));
        assert!(poll(load.as_mut()).is_pending());
        assert!(embedder.waiting(Lane::Backfill) > 0);
    }
    // It would take minutes if the load were still computed; and there would be no room for as much again.
    let next = pin!(embedder.embed(vec!["next".to_owned(); LOAD / 10], Lane::Backfill));
    assert_eq!(wait(next).unwrap().len(), LOAD / 10);
    assert_eq!(embedder.waiting(Lane::Backfill), 0);
}

#[test]
fn closing_answers_everybody() {
    let embedder = start(1, LOAD);
    let mut load = pin!(embedder.embed(words(LOAD), Lane::Backfill));
    assert!(poll(load.as_mut()).is_pending());
    let other: Embedder = embedder.clone();
    other.close();
    assert!(matches!(wait(load), Err(Error::Closed)));
    assert!(matches!(embedder.embed_blocking(&["late"]), Err(Error::Closed)));
    assert_eq!(embedder.waiting(Lane::Backfill), 0);
}

#[test]
fn threads_end_with_the_last_handle() {
    let embedder = start(1, 1);
    let clone = embedder.clone();
    drop(embedder);
    assert_eq!(clone.embed_blocking(&["still here"]).unwrap().len(), 1);
}
