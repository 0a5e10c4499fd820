//! The API: what is cached, as JSON, and what is to be done about it.
//!
//! | request below `/api/v1/` | answer (`inventory::…`) |
//! |---|---|
//! | `GET` | [`Server`](crate::inventory::Server): version, and which store this is |
//! | `GET usage` | [`UsageReport`](crate::inventory::UsageReport) |
//! | `GET images?match=&after=&limit=` | [`ImagePage`](crate::inventory::ImagePage): `match` is a reference or glob, `limit` at most 1000, `after` the `next` of the page before |
//! | `GET objects?after=&limit=` | [`ObjectPage`](crate::inventory::ObjectPage) |
//! | `GET pins` | [`PinPage`](crate::inventory::PinPage) |
//! | `POST purge {"references": [], "all_tags": false, "dry_run": false}` | [`PurgeReport`](crate::inventory::PurgeReport) |
//! | `POST pin {"references": []}` | [`PinReport`](crate::inventory::PinReport) |
//! | `POST unpin {"references": []}`, or `DELETE` | [`UnpinReport`](crate::inventory::UnpinReport) |
//! | `POST verify {"repair": false}` | 202 and [`VerifyStatus`](crate::inventory::VerifyStatus); 409 `running` while one runs |
//! | `GET verify` | [`VerifyStatus`](crate::inventory::VerifyStatus) |
//! | `POST verify/cancel` | [`VerifyStatus`](crate::inventory::VerifyStatus) |
//! | `GET budget` | `{"upstreams": [`[`BudgetReport`](crate::upstream::BudgetReport)`]}` |
//! | `GET upstreams` | `{"upstreams": [`[`UpstreamReport`](crate::upstream::UpstreamReport)`]}` |
//! | `POST offline {"offline": true, "upstream": NAME}` | the same; without a name all are switched, until the next start |
//!
//! Sizes are bytes, times whole seconds since 1970. What changes something needs the header
//! `X-Roadstead: 1` (`guard` says why) and has a body of at most 64 KiB. An error is
//! `{"error": {"code", "message"}}`, with `bad_request`, `bad_reference` (400), `forbidden` (403),
//! `not_found` (404, an upstream that there is not too), `method_not_allowed` (405), `timeout` (408), `running` (409), `too_large`
//! (413) or `store_failed` (500).

use std::sync::Arc;

use http::{Method, StatusCode};
use pingora::protocols::http::ServerSession;
use serde_json::json;

use super::{
    body,
    endpoint::{Endpoint, Offline, Question},
    guard,
    reply::{Refused, Reply},
};
use crate::{
    inventory::{Error, Inventory},
    upstream::Upstream,
};

/// Where the API is.
pub(super) const PREFIX: &str = "/api/v1/";

/// Answers a request for `path` below [`PREFIX`].
pub(super) async fn answer(
    inventory: &Arc<Inventory>,
    upstreams: &[Arc<Upstream>],
    path: &str,
    session: &mut ServerSession,
) -> Reply {
    match read(path, session).await {
        Ok(Question::Budget) => {
            let budgets: Vec<_> = upstreams.iter().map(|upstream| upstream.budget()).collect();
            Reply::json(StatusCode::OK, &json!({ "upstreams": budgets }))
        }
        Ok(Question::Upstreams) => report(upstreams),
        Ok(Question::Offline(switch)) => switch_offline(upstreams, &switch),
        Ok(question) => ask(Arc::clone(inventory), question).await,
        Err(refused) => {
            // Its body may not have been read.
            session.set_keepalive(None);
            let allow = Endpoint::at(path).map(Endpoint::methods).unwrap_or_default();
            let is_method = refused.status == StatusCode::METHOD_NOT_ALLOWED;
            let reply = Reply::from(refused);
            if is_method { reply.allowing(allow) } else { reply }
        }
    }
}

fn report(upstreams: &[Arc<Upstream>]) -> Reply {
    let reports: Vec<_> = upstreams.iter().map(|upstream| upstream.report()).collect();
    Reply::json(StatusCode::OK, &json!({ "upstreams": reports }))
}

fn switch_offline(upstreams: &[Arc<Upstream>], switch: &Offline) -> Reply {
    let Some(name) = &switch.upstream else {
        upstreams.iter().for_each(|upstream| upstream.set_offline(switch.offline));
        return report(upstreams);
    };
    let Some(upstream) = upstreams.iter().find(|upstream| **upstream.name() == **name) else {
        let names: Vec<_> = upstreams.iter().map(|upstream| &**upstream.name()).collect();
        let message = format!("there is no upstream {name}; there are {}", names.join(", "));
        return Refused::new(StatusCode::NOT_FOUND, "not_found", message).into();
    };
    upstream.set_offline(switch.offline);
    report(upstreams)
}

async fn read(path: &str, session: &mut ServerSession) -> Result<Question, Refused> {
    let head = session.req_header();
    let endpoint = Endpoint::at(path)?;
    if !endpoint.allows(&head.method) {
        let message = format!("only {} is answered here", endpoint.methods());
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message));
    }
    let changes = !matches!(head.method, Method::GET | Method::HEAD);
    let query = head.uri.query().unwrap_or_default().to_owned();
    let body = if changes {
        guard::check(head)?;
        body::read(session).await?
    } else {
        Vec::new()
    };
    endpoint.question(changes, &query, &body)
}

/// The store is read and changed where it may block.
async fn ask(inventory: Arc<Inventory>, question: Question) -> Reply {
    let answered = tokio::task::spawn_blocking(move || carry_out(&inventory, question)).await;
    match answered {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => refused(&error).into(),
        Err(error) => {
            tracing::error!(%error, "a request to the API ended halfway");
            let message = "it ended halfway; the log says why";
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", message).into()
        }
    }
}

fn carry_out(inventory: &Arc<Inventory>, question: Question) -> Result<Reply, Error> {
    let (ok, begun) = (StatusCode::OK, StatusCode::ACCEPTED);
    Ok(match question {
        Question::Server => Reply::json(ok, &inventory.server()),
        Question::Usage => Reply::json(ok, &inventory.usage()?),
        Question::Images { matching, after, limit } => {
            let page = inventory.images(matching.as_deref(), after.as_deref(), limit)?;
            Reply::json(ok, &page)
        }
        Question::Objects { after, limit } => {
            Reply::json(ok, &inventory.objects(after.as_deref(), limit)?)
        }
        Question::Pins => Reply::json(ok, &inventory.pins()?),
        Question::Purge(request) => Reply::json(ok, &inventory.purge(&request)?),
        Question::Pin(references) => Reply::json(ok, &inventory.pin(&references)?),
        Question::Unpin(references) => Reply::json(ok, &inventory.unpin(&references)?),
        Question::VerifyStatus => Reply::json(ok, &inventory.verify_status()),
        Question::Verify { repair } => Reply::json(begun, &inventory.start_verify(repair)?),
        Question::Cancel => Reply::json(ok, &inventory.cancel_verify()),
        Question::Budget | Question::Upstreams | Question::Offline(_) => {
            unreachable!("these are answered without the store")
        }
    })
}

fn refused(error: &Error) -> Refused {
    match error {
        Error::BadReference(_) => Refused::new(StatusCode::BAD_REQUEST, "bad_reference", error),
        Error::Running => Refused::new(StatusCode::CONFLICT, "running", error),
        Error::Store(problem) => {
            tracing::warn!(%problem, "the API could not do what it was asked");
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", error)
        }
    }
}
