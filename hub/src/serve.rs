//! The way of a request: accepted, seen, booked, answered or failed, delivered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Extension, Router};
use http::StatusCode;
use http::header::{HeaderName, LOCATION, RANGE, WWW_AUTHENTICATE};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::answer::Answer;
use crate::deliver::{Delivery, Meter};
use crate::fault::Action;
use crate::registry::{self, Access};
use crate::seen::{Place, Seen};
use crate::shared::Shared;
use crate::sync::lock;
use crate::wire::{Flushes, Wire};
use crate::{cdn, control, push, token};

/// Marks a response that must not be sent: the connection closes instead.
#[derive(Debug, Clone, Copy)]
struct Unanswered;

#[derive(Debug, thiserror::Error)]
#[error("dropped by a fault")]
struct Dropped;

/// The connection a request came by.
#[derive(Debug, Clone)]
struct Connection {
    peer: SocketAddr,
    flushes: Flushes,
}

/// Accepts until aborted; aborting it ends its connections too.
pub(crate) async fn accept(listener: TcpListener, place: Place, shared: Arc<Shared>) {
    let router = router(place, shared);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((socket, peer)) => {
                connections.spawn(connection(socket, peer, router.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, ?place, "cannot accept a connection");
                tokio::task::yield_now().await;
            }
        }
    }
}

fn router(place: Place, shared: Arc<Shared>) -> Router {
    let servers = Router::new().fallback(serve).layer(Extension(place));
    let router = match place {
        Place::Registry => servers.nest("/_hub", control::router()),
        Place::Token | Place::Cdn => servers,
    };
    router.with_state(shared)
}

async fn connection(socket: TcpStream, peer: SocketAddr, router: Router) {
    // Without this, small answers wait for the client's delayed ACK.
    let _ = socket.set_nodelay(true);
    let (wire, flushes) = Wire::new(socket);
    let connection = Connection { peer, flushes };
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        let router = router.clone();
        async move {
            let answered: Result<Response, Infallible> =
                router.oneshot(request.map(Body::new)).await;
            let Ok(response) = answered;
            match response.extensions().get::<Unanswered>() {
                Some(Unanswered) => Err(Dropped),
                None => Ok(response),
            }
        }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(wire), service).await {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut seen = Seen::new(place, &parts, connection.peer);
    let access = registry::access(&shared, &seen);
    let carries_blob = shared.carries_blob(&seen);
    let fault = lock(&shared.faults).take(&seen, carries_blob);
    let number = book(&shared, &seen, &access);
    let meter = Meter { shared: shared.clone(), number };

    let mut alteration = None;
    if let Some((id, action)) = fault {
        match replace(&shared, &seen, action).await {
            Replaced::By(answer) => {
                return Delivery::new(answer).send(Vec::new(), connection.flushes, meter);
            }
            Replaced::ByNothing => return unanswered(),
            Replaced::Not(action) => alteration = Some((id, action)),
        }
    }
    if matches!(alteration, Some((_, Action::IgnoreRange))) {
        seen.headers.remove(RANGE);
    }
    let answer = match access {
        Access::Granted { .. } if shared.options.writable && seen.is_push() => {
            push::answer(&shared, &seen, body).await
        }
        _ => answer(&shared, &seen, &access),
    };
    let good = !answer.status.is_client_error() && !answer.status.is_server_error();
    let mut delivery = Delivery::new(answer);
    match alteration {
        Some((_, Action::Delay(time))) if good => tokio::time::sleep(time).await,
        Some((_, action)) if good => delivery = delivery.alter(action),
        Some((id, _)) => lock(&shared.faults).give_back(id),
        None => {}
    }
    let gates = match good {
        true => lock(&shared.gates).in_the_way(&seen, carries_blob),
        false => Vec::new(),
    };
    delivery.send(gates, connection.flushes, meter)
}

fn book(shared: &Shared, seen: &Seen, access: &Access) -> u64 {
    let (account, challenged) = match access {
        Access::Granted { account } => (account.clone(), false),
        Access::Challenged { .. } => (None, true),
    };
    tracing::debug!(method = %seen.method, path = seen.path, challenged, "request");
    lock(&shared.log).receive(seen.record(account), challenged)
}

fn answer(shared: &Shared, seen: &Seen, access: &Access) -> Answer {
    match seen.place {
        Place::Registry => registry::answer(shared, seen, access),
        Place::Token => token::answer(shared, seen),
        Place::Cdn => cdn::answer(shared, seen),
    }
}

/// What stands in place of the answer, if anything does.
enum Replaced {
    By(Answer),
    ByNothing,
    Not(Action),
}

async fn replace(shared: &Shared, seen: &Seen, action: Action) -> Replaced {
    let answer = match action {
        Action::Hang => std::future::pending().await,
        Action::Drop => return Replaced::ByNothing,
        Action::Status(status) => plain_error(status),
        Action::StatusWith { status, headers, content_type, body } => {
            let answer = Answer::new(status_of(status), &content_type, body);
            headers.iter().fold(answer, with_named)
        }
        Action::RateLimited => rate_limited(shared),
        Action::Abuse => Answer::abuse(),
        Action::Html => Answer::login_page(),
        Action::Redirect(url) => Answer::empty(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, &url),
        Action::MissingAuthenticate => registry::unauthorized(),
        Action::Realm(realm) => registry::unauthorized()
            .with(WWW_AUTHENTICATE, &registry::challenge_to(&realm, seen, None)),
        other => return Replaced::Not(other),
    };
    Replaced::By(answer)
}

fn plain_error(status: u16) -> Answer {
    let status = status_of(status);
    let code = match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::FORBIDDEN => "DENIED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
        status if status.is_server_error() => "UNAVAILABLE",
        _ => "UNKNOWN",
    };
    Answer::error(status, code, "by a fault")
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn with_named(answer: Answer, (name, value): &(String, String)) -> Answer {
    let Ok(name) = HeaderName::try_from(name.as_str()) else {
        return answer;
    };
    answer.with(name, value)
}

/// As a spent budget would answer, without spending the real one.
fn rate_limited(shared: &Shared) -> Answer {
    let window_s = shared.options.window.as_secs();
    let limit = shared.options.limit.unwrap_or(100);
    Answer::rate_limited()
        .with(crate::answer::RATELIMIT_LIMIT, &format!("{limit};w={window_s}"))
        .with(crate::answer::RATELIMIT_REMAINING, &format!("0;w={window_s}"))
}

fn unanswered() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Unanswered);
    response
}
