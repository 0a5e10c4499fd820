//! Several addresses of one name: they are tried in turn, without waiting for each to give up.
//!
//! RFC 8305 ("Happy Eyeballs"), with one list for both families: IPv6 first, a new attempt a
//! quarter of a second after the last or as soon as one fails, and the first connection is taken.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

/// RFC 8305 §5, "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses that are tried for one connection; of more, these come first.
const MOST: usize = 6;

/// The addresses in the order in which they are tried: the one that won last, then the families by
/// turns, each in the resolver's order (RFC 8305 §4).
pub(super) fn order(found: &[SocketAddr], last_winner: Option<IpAddr>) -> Vec<SocketAddr> {
    let mut ordered = Vec::with_capacity(found.len());
    let mut v6 = found.iter().filter(|address| address.is_ipv6());
    let mut v4 = found.iter().filter(|address| address.is_ipv4());
    loop {
        let pair = [v6.next(), v4.next()];
        ordered.extend(pair.into_iter().flatten().copied());
        if pair == [None, None] {
            break;
        }
    }
    // Stable: all but the winner stay where they are.
    ordered.sort_by_key(|address| Some(address.ip()) != last_winner);
    ordered.truncate(MOST);
    ordered
}

/// The first connection that `connect` makes to one of `addresses`, and whose it is; else the last
/// error. Each of them gets its chance within `patience`, which the caller enforces.
pub(super) async fn race<S, F>(
    addresses: &[SocketAddr],
    patience: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<(S, SocketAddr)>
where
    S: Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let attempts = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let stagger = STAGGER.min(patience / attempts);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address to try");
    let mut waiting = addresses.iter().copied();
    // Dropped, it aborts those that lost.
    let mut running = JoinSet::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            running.spawn(async move { (attempt.await, address) });
        }
        let ended = match waiting.len() {
            0 => running.join_next().await,
            _ => match timeout(stagger, running.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok((Ok(stream), address))) => return Ok((stream, address)),
            Some(Ok((Err(error), address))) => {
                tracing::debug!(%address, %error, "no connection");
                last = error;
            }
            Some(Err(error)) => last = io::Error::other(error),
            None => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
    }

    /// How a made-up address behaves, by its last digit.
    async fn behave(address: SocketAddr) -> io::Result<SocketAddr> {
        let IpAddr::V4(ip) = address.ip() else { panic!("no IPv6 here") };
        match ip.octets()[3] {
            0 => pending().await,
            1 => Err(io::ErrorKind::ConnectionRefused.into()),
            tenths => {
                tokio::time::sleep(Duration::from_millis(100) * u32::from(tenths)).await;
                Ok(address)
            }
        }
    }

    async fn run(texts: &[&str]) -> (io::Result<IpAddr>, Duration) {
        let began = Instant::now();
        let won = race(&addresses(texts), PATIENCE, behave).await;
        (won.map(|(_, address)| address.ip()), began.elapsed())
    }

    #[test]
    fn families_take_turns_and_ipv6_begins() {
        let found = addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]);
        let expected = addresses(&["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(order(&found, None), expected);
        let found = addresses(&["2001:db8::1", "2001:db8::2", "192.0.2.1"]);
        let expected = addresses(&["2001:db8::1", "192.0.2.1", "2001:db8::2"]);
        assert_eq!(order(&found, None), expected);
        assert_eq!(order(&[], None), []);
    }

    #[test]
    fn the_last_winner_comes_first_and_six_are_enough() {
        let texts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5"];
        let mut found = addresses(&texts);
        found.extend(addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]));
        let ordered = order(&found, Some("192.0.2.4".parse().unwrap()));
        let expected =
            ["192.0.2.4", "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"];
        assert_eq!(ordered, addresses(&expected));
        // A winner that the name no longer has is not dialled.
        assert_eq!(order(&addresses(&["192.0.2.1"]), Some("192.0.2.9".parse().unwrap())).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second() {
        let (won, took) = run(&["192.0.2.0", "192.0.2.2"]).await;
        assert_eq!((won.unwrap().to_string(), took.as_millis()), ("192.0.2.2".to_owned(), 450));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_costs_nothing() {
        let (won, took) = run(&["192.0.2.1", "198.51.100.1", "192.0.2.3"]).await;
        assert_eq!((won.unwrap().to_string(), took.as_millis()), ("192.0.2.3".to_owned(), 300));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_connection_wins_though_another_was_begun_before() {
        let (won, took) = run(&["192.0.2.9", "192.0.2.3"]).await;
        assert_eq!((won.unwrap().to_string(), took.as_millis()), ("192.0.2.3".to_owned(), 550));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_where_the_second_refuses() {
        let (won, took) = run(&["192.0.2.9", "192.0.2.1"]).await;
        assert_eq!((won.unwrap().to_string(), took.as_millis()), ("192.0.2.9".to_owned(), 900));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_refuse_the_last_error_is_told() {
        let (won, _) = run(&["192.0.2.1", "198.51.100.1"]).await;
        assert_eq!(won.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(run(&[]).await.0.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_is_tried_within_the_patience() {
        let tried = Mutex::new(Vec::new());
        let silent = addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let patience = Duration::from_millis(300);
        let racing = race(&silent, patience, |address| {
            tried.lock().unwrap().push(address);
            pending::<io::Result<()>>()
        });
        assert!(timeout(patience, racing).await.is_err());
        assert_eq!(*tried.lock().unwrap(), silent);
    }
}
