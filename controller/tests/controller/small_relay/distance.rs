//! Distance between clients and a relay: a forwarder of datagrams that holds what comes back for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

/// Forwards what comes to `outside` to `inside`, and the answers `delay` later, until the task is aborted.
pub(crate) async fn put(outside: Arc<UdpSocket>, inside: SocketAddr, delay: Duration) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut packet = vec![0; 2048];
    while let Ok((len, client)) = outside.recv_from(&mut packet).await {
        let socket = match clients.get(&client) {
            Some(socket) => Arc::clone(socket),
            None => {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                tokio::spawn(bring_back(
                    Arc::clone(&socket),
                    Arc::clone(&outside),
                    client,
                    delay,
                ));
                clients.insert(client, Arc::clone(&socket));
                socket
            }
        };
        drop(socket.send_to(&packet[..len], inside).await);
    }
}

async fn bring_back(
    from: Arc<UdpSocket>,
    through: Arc<UdpSocket>,
    client: SocketAddr,
    delay: Duration,
) {
    let mut packet = vec![0; 2048];
    while let Ok(len) = from.recv(&mut packet).await {
        let (answer, through) = (packet[..len].to_vec(), Arc::clone(&through));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            drop(through.send_to(&answer, client).await);
        });
    }
}
