//! A TCP link that can be held still, and cut: what a slow or lost network is to a client.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Whether bytes pass, and which generation of connections may live.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    is_open: bool,
    generation: u32,
}

/// See the module.
pub(crate) struct PausedLink {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl PausedLink {
    /// A link to the URL `http://host:port`.
    pub(crate) async fn to(url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, followed) = watch::channel(State {
            is_open: true,
            generation: 0,
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, target.clone(), followed.clone()));
            }
        });
        Self { address, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing passes from here on, and nobody is told.
    pub(crate) fn pause(&self) {
        self.state.send_modify(|state| state.is_open = false);
    }

    /// Ends what was paused; later connections pass.
    pub(crate) fn cut_and_go_on(&self) {
        self.state.send_modify(|state| {
            state.is_open = true;
            state.generation += 1;
        });
    }
}

async fn carry(mut from: TcpStream, target: String, mut state: watch::Receiver<State>) {
    let generation = state.borrow().generation;
    let Ok(mut to) = TcpStream::connect(target).await else {
        return;
    };
    let mut copied = pin!(copy_bidirectional(&mut from, &mut to));
    loop {
        let now = *state.borrow_and_update();
        if now.generation != generation {
            return;
        }
        tokio::select! {
            _ = &mut copied, if now.is_open => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
