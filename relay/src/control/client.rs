//! One connection to one controller.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use turnfleet_proto::fleet::relay_control_client::RelayControlClient;
use turnfleet_proto::{NodeId, fleet};

use super::identity::NodeCredential;
use crate::config::{ControllerConfig, ControllerEndpoint};

/// For the TCP handshake: a lost SYN is sent again once.
const CONNECT: Duration = Duration::from_secs(2);
/// For a connection with its TLS handshake, and for each answer that opens something.
const PATIENCE: Duration = Duration::from_secs(5);
/// HTTP/2 pings, so that a controller that vanished without a word is noticed within [`KEEPALIVE`] twice.
const KEEPALIVE: Duration = Duration::from_secs(4);
/// A snapshot with tens of thousands of static users is a few megabytes.
const MAX_MESSAGE: usize = 16 << 20;

/// Why the controller could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot read {} ({key})", path.display())]
    File {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("no answer within {PATIENCE:?}")]
    Silent,
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Status),
    #[error("the answer is not a credential")]
    Malformed,
}

impl ClientError {
    /// Whether the controller refused what it was asked, rather than being unable to answer.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Status(status) => match status.code() {
                Code::InvalidArgument
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::Unauthenticated
                | Code::NotFound
                | Code::ResourceExhausted => true,
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => false,
            },
            Self::File { .. } | Self::Connect(_) | Self::Silent | Self::Malformed => false,
        }
    }

    /// Whether the controller does not know the credential that it was shown.
    pub(crate) fn is_unknown_credential(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == Code::Unauthenticated)
    }
}

/// A connection to a controller.
#[derive(Debug)]
pub(crate) struct Client(RelayControlClient<Channel>);

impl Client {
    /// Connects; where the endpoint is `https`, checks the controller's certificate and shows the node's own, if it has one.
    pub(crate) async fn connect(
        endpoint: &ControllerEndpoint,
        way: &ControllerConfig,
    ) -> Result<Self, ClientError> {
        let mut channel = Endpoint::from(endpoint.uri.clone())
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        if endpoint.tls {
            let tls = tls(way).await?;
            channel = channel.tls_config(tls).map_err(ClientError::Connect)?;
        }
        let connected = answered(channel.connect()).await?;
        let client = RelayControlClient::new(connected.map_err(ClientError::Connect)?);
        Ok(Self(client.max_decoding_message_size(MAX_MESSAGE)))
    }

    /// Makes the node a member of the fleet.
    pub(crate) async fn enrol(
        &mut self,
        node_id: &NodeId,
        join_token: &str,
    ) -> Result<NodeCredential, ClientError> {
        let request = fleet::EnrollRequest {
            join_token: join_token.to_owned(),
            node_id: node_id.to_string(),
        };
        let answer = answered(self.0.enroll(request)).await?;
        let answer = answer.map_err(ClientError::Status)?.into_inner();
        NodeCredential::new(&answer.node_credential).ok_or(ClientError::Malformed)
    }

    /// Opens the control session.
    pub(crate) async fn open_session(
        &mut self,
        credential: &NodeCredential,
        messages: impl Stream<Item = fleet::NodeMessage> + Send + 'static,
    ) -> Result<Streaming<fleet::ControllerMessage>, ClientError> {
        let mut request = Request::new(messages);
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", credential.as_str())
            .parse()
            .expect("a credential has visible ASCII characters only");
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        let answer = answered(self.0.session(request)).await?;
        Ok(answer.map_err(ClientError::Status)?.into_inner())
    }
}

/// What is believed and what is shown. The files are read each time: certificates are renewed while the node runs.
async fn tls(way: &ControllerConfig) -> Result<ClientTlsConfig, ClientError> {
    let mut tls = ClientTlsConfig::new();
    if let Some(path) = &way.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read("controller.ca", path).await?));
    }
    if let Some(files) = &way.certificate {
        let certificate = read("controller.certificate", &files.certificate).await?;
        let key = read("controller.key", &files.key).await?;
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(tls)
}

async fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    let contents = tokio::fs::read(path).await;
    contents.map_err(|source| ClientError::File {
        key,
        path: path.to_owned(),
        source,
    })
}

async fn answered<T>(asked: impl Future<Output = T>) -> Result<T, ClientError> {
    timeout(PATIENCE, asked)
        .await
        .map_err(|_| ClientError::Silent)
}
