//! `POST reload`: the configuration is read again, and what came of it is told.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::reply::{Refused, Reply};
use crate::config::{Problem, Reload};

/// Has the configuration read again where it may block, and tells what came of it.
pub(super) async fn answer(reload: Option<Arc<Reload>>) -> Reply {
    let Some(reload) = reload else {
        let message = "this server can't read its configuration again; restart it instead";
        return Refused::new(StatusCode::NOT_FOUND, "not_found", message).into();
    };
    match tokio::task::spawn_blocking(move || reload()).await {
        Ok(Ok(reloaded)) => Reply::json(StatusCode::OK, &reloaded),
        Ok(Err(problems)) => invalid(&problems),
        Err(error) => {
            tracing::error!(%error, "a reload ended halfway");
            let message = "it ended halfway; the log says why";
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "reload_failed", message).into()
        }
    }
}

fn invalid(problems: &[Problem]) -> Reply {
    let message = "the configuration can't be used, and nothing has changed; mend what is listed under problems, and reload again";
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| {
            let Problem { origin, key, refusal } = problem;
            json!({ "origin": origin, "key": key, "problem": refusal.what, "remedy": refusal.remedy })
        })
        .collect();
    let error =
        json!({ "code": "invalid_configuration", "message": message, "problems": problems });
    Reply::json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": error }))
}
