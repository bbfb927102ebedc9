//! Which request and which trace a log line belongs to.

use std::{
    fmt::{self, Display},
    future::Future,
    sync::Arc,
};

use tokio::task::futures::TaskLocalFuture;

use super::spans::present;

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// Has the lines that `future` logs name this request: an id of letters, digits, `-`, `_` and `.`.
pub fn within_request<F: Future>(id: Arc<str>, future: F) -> TaskLocalFuture<Arc<str>, F> {
    REQUEST.scope(id, future)
}

/// Of a line that is written now; see [`program::LineOrigin`].
///
/// # Errors
/// Those of `add`.
pub fn line_origin(add: &mut dyn FnMut(&str, &dyn Display) -> fmt::Result) -> fmt::Result {
    if let Some((trace, span)) = present() {
        add("trace_id", &trace)?;
        add("span_id", &span)?;
    }
    REQUEST.try_with(|id| add("request.id", id)).unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Vec<String> {
        let mut said = Vec::new();
        line_origin(&mut |name, value| {
            said.push(format!("{name}={value}"));
            Ok(())
        })
        .unwrap();
        said
    }

    #[tokio::test]
    async fn what_is_logged_for_a_request_names_it_and_nothing_else_does() {
        let within = within_request("a-1.b".into(), async {
            tokio::task::yield_now().await;
            said()
        });
        assert_eq!((within.await, said()), (vec!["request.id=a-1.b".to_owned()], Vec::new()));
    }
}
