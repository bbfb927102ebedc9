//! Loops in the background. Each runs until it is told to stop, and survives everything else. Imports `service`,
//! `domain` and `error`.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    domain::Retention,
    service::{Provider, Round, Service},
};

/// How long a row that another process wrote may wait unnoticed.
const POLL: Duration = Duration::from_millis(500);
/// How long a worker rests when the provider or the database cannot go on, whatever comes in meanwhile: a service in
/// trouble is not helped by being asked more often.
const REST: Duration = Duration::from_secs(1);

/// A round longer than this waits for something that will not come: a network that swallows packets, say. What it had
/// claimed is due again by the clock.
const ROUND_MAX: Duration = Duration::from_secs(30 * 60);

/// Embeds what is pending until `stop` turns true. Rounds that are under way are finished first.
pub async fn embed(service: Service, stop: watch::Receiver<bool>) {
    let mut loops = JoinSet::new();
    for provider in service.providers() {
        for _ in 0..service.loops(provider) {
            loops.spawn(embed_in_turn(service.clone(), provider.clone(), stop.clone()));
        }
    }
    loops.join_all().await;
}

async fn embed_in_turn(service: Service, provider: Arc<Provider>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let round = match tokio::time::timeout(ROUND_MAX, service.embed_pending(&provider)).await {
            Ok(Ok(round)) => round,
            Ok(Err(error)) => {
                tracing::warn!(%error, code = %error.code, "the worker could not go on; it will");
                Round::Blocked
            }
            Err(_) => {
                tracing::warn!(?ROUND_MAX, "a round of embedding took too long and was given up");
                Round::Blocked
            }
        };
        let pause = async {
            match round {
                Round::Worked => {}
                Round::Idle => {
                    // Whichever is first.
                    tokio::time::timeout(POLL, provider.noticed()).await.ok();
                }
                Round::Blocked => tokio::time::sleep(REST).await,
                Round::Away => {
                    tokio::time::timeout(REST, provider.up()).await.ok();
                }
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = pause => {}
        }
    }
}

/// Does long work that waits, or whose process ended, until `stop` turns true.
pub async fn operations(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        match service.run_operations().await {
            Ok(true) if !*stop.borrow() => continue,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, code = %error.code, "no operation could be begun; they will be")
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

/// Finds what embedding spaces lack, and drops those that were deleted, until `stop` turns true.
pub async fn survey(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match service.survey_spaces().await {
            Ok(true) if !*stop.borrow() => continue,
            Ok(_) => POLL,
            Err(error) => {
                tracing::warn!(%error, code = %error.code, "the embedding spaces were not looked at; they will be");
                REST
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How often it is counted which words are in how many chunks, and how much is stored. Whoever asks takes into account what was
/// not yet counted; this is about what that costs them.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Counts the words and the bytes of what was written until `stop` turns true.
pub async fn count(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        let (words, bytes) = (service.count_words().await, service.add_up_bytes().await);
        let left_some = [("words", words), ("bytes", bytes)].into_iter().any(|(what, counted)| {
            counted.unwrap_or_else(|error| {
                tracing::warn!(%error, code = %error.code, what, "something was not counted; it will be");
                false
            })
        });
        if left_some && !*stop.borrow() {
            continue;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
    }
}

/// How often it is looked whether a table has grown so much that plans for it are to be made anew. In that time an import adds
/// a few thousand contexts.
const ANALYZE_EVERY: Duration = Duration::from_secs(2);

/// Has plans made anew for tables that grow fast until `stop` turns true.
pub async fn analyze(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        match service.analyze_what_has_grown().await {
            Ok(tables) if tables.is_empty() => {}
            Ok(tables) => tracing::debug!(?tables, "analyzed"),
            Err(error) => tracing::warn!(%error, code = %error.code, "no table was analyzed; they will be"),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(ANALYZE_EVERY) => {}
        }
    }
}

/// How often outdated rows are removed. They are invisible at once; this is about their space.
const REMOVE_EVERY: Duration = Duration::from_secs(60);

/// Removes what is outdated until `stop` turns true.
pub async fn remove_outdated(service: Service, retention: Retention, mut stop: watch::Receiver<bool>) {
    loop {
        let pause = match service.remove_outdated(&retention).await {
            // There is more than one round takes.
            Ok(removed) if removed.may_have_left_some() => REST,
            Ok(_) => REMOVE_EVERY,
            Err(error) => {
                tracing::warn!(%error, code = %error.code, "outdated rows were not removed; they will be");
                REMOVE_EVERY
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// How often the backlog is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(15);

/// Measures the backlog of embedding work until `stop` turns true.
pub async fn measure_backlog(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        if let Err(error) = service.measure_backlog().await {
            tracing::debug!(%error, "the backlog of embedding work was not measured");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

/// How often the database in process is vacuumed.
const VACUUM_EVERY: Duration = Duration::from_secs(10 * 60);

/// Keeps the database in process tidy until `stop` turns true.
pub async fn vacuum(service: Service, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(VACUUM_EVERY) => {}
        }
        if let Err(error) = service.vacuum().await {
            tracing::warn!(%error, "the database in process could not be vacuumed");
        }
    }
}
