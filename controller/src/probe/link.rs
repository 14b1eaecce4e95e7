//! The bytes between the probe and one listener of a relay: a connected UDP socket, or a TCP or TLS stream cut into messages.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use turnfleet_turn::Transport;
use turnfleet_turn::wire::{Frame, deframe};

/// Longer messages than any that a probe asks for end the stream.
const MAX_MESSAGE: usize = 2048;

/// How to reach one listener.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// The name that a TLS certificate is checked against, and that the handshake asks for.
    pub(super) server_name: ServerName<'static>,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open way to a listener.
pub(super) enum Link {
    Udp(UdpSocket),
    Stream {
        stream: Box<dyn Stream>,
        unread: Vec<u8>,
    },
}

impl Link {
    /// Opens a socket of its own, for one client.
    pub(super) async fn open(place: &Place, tls: &Arc<rustls::ClientConfig>) -> io::Result<Self> {
        let stream: Box<dyn Stream> = match place.transport {
            Transport::Udp => {
                let any: SocketAddr = match place.address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(place.address).await?;
                return Ok(Self::Udp(socket));
            }
            Transport::Tcp => Box::new(connect(place.address).await?),
            Transport::Tls => {
                let connector = TlsConnector::from(Arc::clone(tls));
                let stream = connect(place.address).await?;
                Box::new(connector.connect(place.server_name.clone(), stream).await?)
            }
        };
        let unread = Vec::new();
        Ok(Self::Stream { stream, unread })
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(message).await.map(drop),
            Self::Stream { stream, .. } => {
                stream.write_all(message).await?;
                stream.flush().await
            }
        }
    }

    /// Puts the next message into `message`. Nothing is lost when the caller gives up waiting.
    pub(super) async fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        message.clear();
        match self {
            Self::Udp(socket) => {
                message.reserve(MAX_MESSAGE);
                socket.recv_buf(message).await.map(drop)
            }
            Self::Stream { stream, unread } => loop {
                match deframe(unread, MAX_MESSAGE) {
                    Frame::Message { len, total } => {
                        message.extend_from_slice(&unread[..len]);
                        unread.drain(..total);
                        return Ok(());
                    }
                    Frame::Garbage => return Err(io::ErrorKind::InvalidData.into()),
                    Frame::NeedMore(_) => {
                        if stream.read_buf(unread).await? == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                }
            },
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
