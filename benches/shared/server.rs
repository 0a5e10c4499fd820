//! A server before a store that is there already, with no upstream to ask.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Server {
    pub(super) child: Child,
    admin: SocketAddr,
}

// === impl Server ===

impl Server {
    /// Ready once this ends.
    pub(super) fn start(directory: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (listen, admin) = (free(), free());
        let child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["serve", "--upstream", "docker.io=http://127.0.0.1:9", "--data"])
            .arg(directory)
            .args(["--listen", &listen.to_string(), "--admin", &admin.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, admin };
        let deadline = Instant::now() + PATIENCE;
        while server.try_get("/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(server.child.try_wait().unwrap().is_none(), "the server has ended");
            assert!(Instant::now() < deadline, "the server is not ready");
            std::thread::sleep(Duration::from_millis(1));
        }
        server
    }

    /// Status and body, on a connection of its own; `None` if it does not answer.
    pub(super) fn try_get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut socket = TcpStream::connect(self.admin).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let body = answer.split_off(end + 4);
        let status = String::from_utf8(answer).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some((status, body))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
