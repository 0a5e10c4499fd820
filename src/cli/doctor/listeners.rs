//! The listeners: does something answer there, is it Roadstead, and can others reach it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    finding::{Check, Finding, Group},
    http::{Http, Reply, Trust, WHO, is_roadstead},
};
use crate::{
    cli::client::outward,
    config::{Address, Config, Listen},
};

/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// As much of an answer as is read from a Unix socket.
const MOST_BYTES: u64 = 64 << 10;

const ANSWERS: Check = Check(Group::Listeners, "answers");
const OUTSIDE: Check = Check(Group::Listeners, "outside");
const FIREWALL: Check = Check(Group::Listeners, "firewall");

/// Who answers at an address.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    Roadstead(String),
    Another(String),
    /// It can be connected to, and more can't be asked of it.
    Somebody,
    Nobody(String),
}

/// One listener; `runs` says whether the server's admin listener answers.
pub(super) fn check(config: &Config, listen: &Listen, runs: bool) -> Vec<Finding> {
    let socket = match &listen.address {
        Address::Unix(path) => return vec![unix(path, runs)],
        Address::Tcp(socket) => *socket,
    };
    let about = listen.address.to_string();
    let near = SocketAddr::new(local(socket.ip()), socket.port());
    let here = who(listen, near);
    let is_there = matches!(here, Who::Roadstead(_) | Who::Somebody);
    let mut findings = vec![told(&about, &here, runs, socket.port())];
    if socket.ip().is_loopback() {
        let remedy = "listen at 0.0.0.0 or at an address of this machine's, if others are to pull";
        findings.push(OUTSIDE.note(about, "can be reached from this machine alone", remedy));
    } else if is_there {
        findings.extend(outside(listen, socket, near));
        findings.extend(firewall(socket.port(), Path::new("/")));
        findings.extend(not_let_in(config, &about, &here));
    }
    findings
}

/// Where one connects to reach what listens at `address`.
fn local(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn told(about: &str, who: &Who, runs: bool, port: u16) -> Finding {
    match who {
        Who::Roadstead(said) => ANSWERS.ok(about, format!("Roadstead answers {said}")),
        Who::Somebody => ANSWERS.ok(about, "accepts connections"),
        Who::Another(said) => ANSWERS
            .fault(
                about,
                format!("another program answers: {said}"),
                "end it, or listen at another port",
            )
            .run(format!("ss -ltnp 'sport = :{port}'")),
        Who::Nobody(problem) if runs => ANSWERS.fault(
            about,
            format!("the server runs, and does not answer here: {problem}"),
            "does it run with this configuration? restart it, and look into its log",
        ),
        Who::Nobody(_) => {
            ANSWERS.note(about, "nothing listens there", "start Roadstead").run("roadstead serve")
        }
    }
}

fn who(listen: &Listen, at: SocketAddr) -> Who {
    // These begin with something else than a request.
    if listen.proxy_protocol || listen.transparent.is_some() {
        return match TcpStream::connect_timeout(&at, PATIENCE) {
            Ok(_) => Who::Somebody,
            Err(error) => Who::Nobody(error.to_string()),
        };
    }
    let scheme = if listen.tls.is_some() { "https" } else { "http" };
    let http = Http::new(PATIENCE, Trust::Anybody);
    match http.get(&format!("{scheme}://{at}{WHO}"), &[]) {
        Ok(reply) => of_reply(&reply),
        Err(error) => match TcpStream::connect_timeout(&at, PATIENCE) {
            // It wants a certificate of ours, or speaks no HTTP.
            Ok(_) if listen.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) => {
                Who::Somebody
            }
            Ok(_) => Who::Another(error),
            Err(_) => Who::Nobody(error),
        },
    }
}

fn of_reply(reply: &Reply) -> Who {
    let took = reply.took.as_millis();
    match is_roadstead(reply) {
        true => Who::Roadstead(format!("within {took} ms")),
        false => {
            let server = reply.headers.get("server").and_then(|name| name.to_str().ok());
            Who::Another(format!("{} {}", reply.status, server.unwrap_or("(it names no server)")))
        }
    }
}

fn unix(path: &Path, runs: bool) -> Finding {
    let about = format!("unix:{}", path.display());
    let ask = || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!("GET {WHO} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MOST_BYTES).read_to_end(&mut answer)?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let who = match ask() {
        Ok(answer) if answer.contains("there is no upstream") || answer.contains("(access.") => {
            Who::Roadstead("at its socket".to_owned())
        }
        Ok(answer) => Who::Another(answer.lines().next().unwrap_or_default().to_owned()),
        Err(error) => Who::Nobody(error.to_string()),
    };
    told(&about, &who, runs, 0)
}

/// From an address that others use too.
fn outside(listen: &Listen, socket: SocketAddr, near: SocketAddr) -> Option<Finding> {
    let address = if socket.ip().is_unspecified() { outward(socket.ip())? } else { socket.ip() };
    let at = SocketAddr::new(address, socket.port());
    if at == near {
        return None;
    }
    Some(match who(listen, at) {
        Who::Roadstead(_) | Who::Somebody => {
            OUTSIDE.ok(at, "answers at this machine's own address too")
        }
        Who::Another(said) => OUTSIDE.fault(
            at,
            format!("another program answers at this machine's own address: {said}"),
            "end it, or listen at another port",
        ),
        Who::Nobody(problem) => OUTSIDE.fault(
            at,
            format!("does not answer at this machine's own address: {problem}"),
            "look at the rules of its firewall (nft list ruleset) and at where Roadstead listens",
        ),
    })
}

/// From here nothing passes the firewall, so it can't be tried: only told that there is one.
fn firewall(port: u16, root: &Path) -> Option<Finding> {
    let ufw = fs::read_to_string(root.join("etc/ufw/ufw.conf")).unwrap_or_default();
    let is_ufw = ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("enabled=yes"));
    let is_firewalld = root.join("run/firewalld").is_dir();
    let (name, command) = match (is_ufw, is_firewalld) {
        (true, _) => ("ufw", format!("ufw allow {port}/tcp")),
        (_, true) => {
            let add = format!("firewall-cmd --permanent --add-port={port}/tcp");
            ("firewalld", format!("{add} && firewall-cmd --reload"))
        }
        _ => return None,
    };
    let found = format!("{name} runs here; whether it lets others in can't be tried from here");
    let remedy = "open the port, if that is not done: clients that are kept out go to the registry";
    Some(FIREWALL.note(format!("port {port}"), found, remedy).run(command))
}

/// We come from loopback, which `access.allow` need not have; what others meet is not known.
fn not_let_in(config: &Config, about: &str, who: &Who) -> Option<Finding> {
    let Who::Roadstead(_) = who else { return None };
    let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
    let is_allowed = config.access.allow.iter().any(|network| network.contains(&loopback));
    (!is_allowed).then(|| {
        let remedy = "nothing, unless clients on this machine are to pull: then add 127.0.0.0/8";
        Check(Group::Listeners, "access").note(about, "access.allow keeps this machine out", remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_firewall_is_told_with_the_command_that_opens_the_port() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(firewall(5000, root.path()), None);
        fs::create_dir_all(root.path().join("run/firewalld")).unwrap();
        let told = firewall(5000, root.path()).unwrap();
        assert!(told.commands[0].contains("--add-port=5000/tcp"), "{told:?}");
        fs::create_dir_all(root.path().join("etc/ufw")).unwrap();
        fs::write(root.path().join("etc/ufw/ufw.conf"), "# x\nENABLED=yes\n").unwrap();
        assert_eq!(firewall(5000, root.path()).unwrap().commands, ["ufw allow 5000/tcp"]);
    }

    #[test]
    fn who_answers_decides() {
        let level = |who: &Who, runs| told("a", who, runs, 1).level;
        let nobody = Who::Nobody("refused".to_owned());
        assert_eq!(level(&Who::Somebody, true), Level::Ok);
        assert_eq!(level(&Who::Another("nginx".to_owned()), false), Level::Fault);
        assert_eq!(level(&nobody, true), Level::Fault);
        assert_eq!(level(&nobody, false), Level::Note);
    }
}
