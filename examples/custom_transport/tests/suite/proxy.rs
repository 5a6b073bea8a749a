//! What stands between clients and servers, and breaks when it is told to.

use std::path::PathBuf;

use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// How the connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Weather {
    /// Each increase breaks what is open.
    cuts: u64,
    /// Nothing passes, and nobody is told.
    stalled: bool,
}

/// Connections that pass through here.
#[derive(Debug, Default)]
pub(crate) struct Proxy(watch::Sender<Weather>);

impl Proxy {
    /// Passes on what comes here to this server, until the test's runtime ends.
    pub(crate) fn start(&self, listener: UnixListener, server: PathBuf) {
        let weather = self.0.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), weather.clone()));
            }
        });
    }

    pub(crate) fn cut(&self) {
        self.0.send_modify(|weather| weather.cuts += 1);
    }

    pub(crate) fn stall(&self) {
        self.0.send_modify(|weather| weather.stalled = true);
    }
}

/// Passes on what one client and the server say until one of them, or the weather, ends it.
async fn pass(mut client: UnixStream, server: PathBuf, mut weather: watch::Receiver<Weather>) {
    let begun = *weather.borrow_and_update();
    let passing = async {
        let Ok(mut server) = UnixStream::connect(server).await else { return };
        // Whether it ends well is for both ends to find out.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    };
    let mut passing = std::pin::pin!(passing);
    let mut silent = begun.stalled;
    loop {
        tokio::select! {
            () = &mut passing, if !silent => return,
            changed = weather.changed() => {
                let now = *weather.borrow_and_update();
                // The test is over, or the connection is to break.
                if changed.is_err() || now.cuts != begun.cuts {
                    return;
                }
                silent = now.stalled;
            }
        }
    }
}
