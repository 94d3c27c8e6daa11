//! A relay between a client and a server: it can hold back what the server says, and lead elsewhere.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Ends with the value, and all of its connections.
pub(crate) struct Relay {
    port: u16,
    target: Arc<Mutex<u16>>,
    holds: watch::Sender<bool>,
    /// Changes when what is open is to be closed.
    cuts: watch::Sender<()>,
    runs: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.runs.abort();
    }
}

impl Relay {
    /// To a port of this machine.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (target, holds, cuts) = (Arc::new(Mutex::new(port)), watch::Sender::new(false), watch::Sender::new(()));
        let port = listener.local_addr().unwrap().port();
        let (leads_to, holding, cut) = (target.clone(), holds.clone(), cuts.clone());
        let runs = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let port = *leads_to.lock().unwrap();
                let (holding, mut cut) = (holding.subscribe(), cut.subscribe());
                connections.spawn(async move {
                    tokio::select! {
                        () = carry(client, port, holding) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, target, holds, cuts, runs }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Carries nothing any more from the server to the client, which does not notice.
    pub(crate) fn hold(&self) {
        self.holds.send_replace(true);
    }

    /// Leads elsewhere from now on, and closes what is open.
    pub(crate) fn lead_to(&self, port: u16) {
        *self.target.lock().unwrap() = port;
        self.cuts.send_replace(());
    }
}

async fn carry(client: TcpStream, port: u16, mut holds: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if holds.wait_for(|holds| !holds).await.is_err() || to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = back => {}
    }
}
