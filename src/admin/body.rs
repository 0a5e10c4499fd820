//! The body of a request: read whole, up to a limit, within a time.

use std::time::Duration;

use http::{StatusCode, header};
use pingora::protocols::http::ServerSession;
use tokio::time::timeout;

use super::reply::Refused;

/// The largest body; a thousand references fit.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the whole body. Where it is refused, the connection is not used again: what is left of
/// the body would be read as the next request.
pub(super) async fn read(session: &mut ServerSession) -> Result<Vec<u8>, Refused> {
    let body = match timeout(PATIENCE, read_up_to_limit(session)).await {
        Ok(body) => body,
        Err(_) => Err(Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            format!("the body took more than {} s; send it faster", PATIENCE.as_secs()),
        )),
    };
    if body.is_err() {
        session.set_keepalive(None);
    }
    body
}

async fn read_up_to_limit(session: &mut ServerSession) -> Result<Vec<u8>, Refused> {
    let announced = session.get_header(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MOST_BYTES as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(piece)) if body.len() + piece.len() > MOST_BYTES => return Err(too_large()),
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body),
            Err(_) => return Err(Refused::bad_request("the body ended too early; send it again")),
        }
    }
}

fn too_large() -> Refused {
    let message = format!("a body has at most {MOST_BYTES} bytes; ask in several steps");
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}
