//! Who goes alone, who waits, and who goes together.

use futures_util::{FutureExt, future::poll_immediate};
use tokio::sync::mpsc;

use super::*;

const NEVER: Duration = Duration::from_secs(3_600);

/// Hands each call to the test, which answers it.
struct Handed(mpsc::Sender<(Vec<String>, oneshot::Sender<Answer>)>);

#[async_trait]
impl Embedder for Handed {
    async fn embed(&self, _: Purpose, texts: Vec<String>) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0.send((texts, answer)).await.unwrap();
        answered.await.unwrap_or_else(|_| Err(EmbedError::transient("not answered")))
    }

    async fn model(&self) -> Result<Model, EmbedError> {
        Ok(Model { provider: "handed", name: "handed".to_owned(), tokens_max: None })
    }

    async fn probe(&self) -> Result<(), EmbedError> {
        Ok(())
    }

    fn batch_texts_max(&self) -> usize {
        3
    }
}

type Calls = mpsc::Receiver<(Vec<String>, oneshot::Sender<Answer>)>;
type Query<'a> = BoxFuture<'a, Answer>;

fn handed(wait_max: Duration) -> (Batched<Handed>, Calls) {
    let (sender, calls) = mpsc::channel(WAITING_MAX);
    (Batched::waiting(Handed(sender), 1, wait_max), calls)
}

/// A query that has begun: it is under way, or it waits.
async fn begun<'a>(embedder: &'a Batched<Handed>, text: &str) -> Query<'a> {
    let mut query = embedder.embed(Purpose::Query, vec![text.to_owned()]);
    assert!(poll_immediate(&mut query).await.is_none());
    query
}

/// A vector by which a text is known.
fn vector(text: &str) -> Vector {
    Vector::new(vec![1.0, f32::from(text.as_bytes()[0])]).unwrap()
}

fn vectors(texts: &[String]) -> Vec<Vector> {
    texts.iter().map(|text| vector(text)).collect()
}

fn is_of(answer: &Answer, text: &str) -> bool {
    matches!(answer, Ok(vectors) if vectors.len() == 1 && vectors[0].as_slice() == vector(text).as_slice())
}

#[tokio::test]
async fn with_room_a_query_goes_at_once_and_without_it_together_with_the_others() {
    let (embedder, mut calls) = handed(NEVER);
    let first = begun(&embedder, "a").await;
    let (texts, answer) = calls.try_recv().unwrap();
    assert_eq!(texts, ["a"]);
    let waiting = [begun(&embedder, "b").await, begun(&embedder, "c").await];
    let (full, left) = (begun(&embedder, "d").await, begun(&embedder, "e").await);
    assert!(calls.try_recv().is_err(), "there is no room");
    let mut document = embedder.embed(Purpose::Document, vec!["document".to_owned()]);
    assert!(poll_immediate(&mut document).await.is_none());
    assert_eq!(calls.try_recv().unwrap().0, ["document"], "documents pass");
    answer.send(Ok(vectors(&texts))).unwrap();
    assert!(is_of(&first.await, "a"));
    let (texts, answer) = calls.recv().await.unwrap();
    assert_eq!(texts, ["b", "c", "d"], "as many as a call takes");
    answer.send(Ok(vectors(&texts))).unwrap();
    for (query, text) in waiting.into_iter().chain([full]).zip(["b", "c", "d"]) {
        assert!(is_of(&query.await, text), "{text}");
    }
    let (texts, answer) = calls.recv().await.unwrap();
    answer.send(Ok(vectors(&texts))).unwrap();
    assert!(is_of(&left.await, "e"));
}

#[tokio::test]
async fn a_text_that_fails_does_not_fail_the_others() {
    for refuse in [
        |detail| EmbedError::Permanent { detail },
        |detail| EmbedError::Unusable { detail },
        |detail| EmbedError::TooLong { detail },
    ] {
        let (embedder, mut calls) = handed(NEVER);
        let first = begun(&embedder, "a").await;
        let queries = [begun(&embedder, "good").await, begun(&embedder, "bad").await];
        drop(first);
        let provider = async {
            while let Some((texts, answer)) = calls.recv().await {
                let is_bad = texts.iter().any(|text| text == "bad");
                answer.send(if is_bad { Err(refuse(texts.concat())) } else { Ok(vectors(&texts)) }).ok();
            }
        };
        let [good, bad] = queries;
        let queries = async { (good.await, bad.await) };
        let Either::Left(((good, bad), _)) = select(queries.boxed(), provider.boxed()).await else {
            panic!("the queries end")
        };
        assert!(is_of(&good, "good"), "{good:?}");
        assert_eq!(bad.unwrap_err().to_string(), "bad", "tried alone");
    }
}

#[tokio::test]
async fn a_provider_that_is_away_is_asked_once_for_all() {
    let (embedder, mut calls) = handed(NEVER);
    let first = begun(&embedder, "a").await;
    let queries = [begun(&embedder, "b").await, begun(&embedder, "c").await];
    drop((first, calls.try_recv().unwrap()));
    let (texts, answer) = calls.recv().await.unwrap();
    assert_eq!(texts, ["b", "c"]);
    answer.send(Err(EmbedError::transient("away"))).unwrap();
    for query in queries {
        assert!(matches!(query.await, Err(EmbedError::Transient { .. })));
    }
    assert!(calls.try_recv().is_err());
}

#[tokio::test]
async fn who_goes_away_harms_nobody() {
    let (embedder, mut calls) = handed(NEVER);
    let first = begun(&embedder, "a").await;
    let [gone, going, staying] =
        [begun(&embedder, "b").await, begun(&embedder, "c").await, begun(&embedder, "d").await];
    drop(gone);
    // Of a call of its own: its place is free.
    drop(first);
    calls.recv().await.unwrap();
    let (texts, answer) = calls.recv().await.unwrap();
    assert_eq!(texts, ["c", "d"], "nobody waits for the other one");
    drop(going);
    answer.send(Ok(vectors(&texts))).unwrap();
    assert!(is_of(&staying.await, "d"));
    // A call for which nobody waits any more ends.
    let first = begun(&embedder, "e").await;
    let last = begun(&embedder, "f").await;
    drop(first);
    calls.recv().await.unwrap();
    let (texts, mut answer) = calls.recv().await.unwrap();
    assert_eq!(texts, ["f"]);
    drop(last);
    answer.closed().await;
    assert_eq!(embedder.0.lock().calls, 0);
}

#[tokio::test]
async fn nobody_waits_long_for_company_and_not_everybody_may_wait() {
    let (embedder, mut calls) = handed(Duration::ZERO);
    let mut queries = vec![begun(&embedder, "first").await];
    let mut under_way = vec![calls.recv().await.unwrap()];
    for _ in 0..LATE_CALLS_MAX {
        let mut late = begun(&embedder, "late").await;
        match select(calls.recv().boxed(), &mut late).await {
            Either::Left((call, _)) => under_way.push(call.unwrap()),
            Either::Right((answer, _)) => panic!("nobody has answered: {answer:?}"),
        }
        queries.push(late);
    }
    // The next one waits for one of them to end.
    queries.push(begun(&embedder, "later").await);
    embedder.0.send_waiting(1 + LATE_CALLS_MAX);
    let (under_way_now, waiting) = {
        let state = embedder.0.lock();
        (state.calls, state.waiting.len())
    };
    assert_eq!((under_way_now, waiting), (1 + LATE_CALLS_MAX, 1));
    while embedder.0.lock().waiting.len() < WAITING_MAX {
        queries.push(begun(&embedder, "more").await);
    }
    let refused = embedder.embed(Purpose::Query, vec!["one too many".to_owned()]).await;
    assert!(matches!(refused, Err(EmbedError::Transient { .. })));
    // Who went away does not count.
    queries.pop();
    drop(begun(&embedder, "another").await);
}
