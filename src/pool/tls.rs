//! How is a connection protected? By rustls, or not at all; never one in place of the other.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_postgres::{
    Socket,
    tls::{ChannelBinding, TlsStream},
};

use super::tap::Tapped;
use crate::config::Tls;

/// Why the protection that was asked for cannot be had.
#[derive(Debug)]
pub struct TlsError {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Protects the sockets of one server. Cloning is cheap.
#[derive(Clone)]
pub(super) enum Security {
    /// Leaves them as they are.
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_postgres_rustls::MakeRustlsConnect),
}

/// A protected socket, or a plain one where that was asked for.
pub(crate) enum Secured {
    Plain(Socket),
    /// The server is on this machine.
    #[cfg(unix)]
    Local(tokio::net::UnixStream),
    #[cfg(feature = "testkit")]
    Given(super::streams::Stream),
    #[cfg(feature = "tls")]
    Tls(Box<rustls_stream::Rustls>),
}

impl TlsError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    #[cfg(feature = "tls")]
    fn because(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no TLS as asked for: {}", self.what)
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl Security {
    /// What `tls` asks for; `direct` is `sslnegotiation=direct`, which PostgreSQL 17 wants announced by ALPN.
    pub(super) fn new(tls: &Tls, direct: bool) -> Result<Self, TlsError> {
        if *tls == Tls::Disable {
            return Ok(Self::Plain);
        }
        #[cfg(feature = "tls")]
        return rustls_stream::connector(tls, direct).map(Self::Tls);
        #[cfg(not(feature = "tls"))]
        Err(TlsError::new(format!(
            "this program was built without pgdetour's feature \"tls\": build it with that (direct: {direct})"
        )))
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Protects a socket to `host`.
    pub(super) async fn secure(self, socket: Socket, host: String) -> io::Result<Secured> {
        match self {
            Self::Plain => {
                // Nobody's name is asked for.
                drop(host);
                Ok(Secured::Plain(socket))
            }
            #[cfg(feature = "tls")]
            Self::Tls(maker) => Ok(Secured::Tls(Box::new(rustls_stream::handshake(maker, socket, &host).await?))),
        }
    }
}

/// Protects streams to something else than PostgreSQL. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Protection(Security);

impl Protection {
    /// What `tls` asks for.
    pub(crate) fn new(tls: &Tls) -> Result<Self, TlsError> {
        Security::new(tls, false).map(Self)
    }

    /// Protects a stream to `host`.
    ///
    /// Cancel safety: a dropped call closes the stream.
    pub(crate) async fn secure(&self, stream: TcpStream, host: &str) -> io::Result<Box<dyn Duplex>> {
        match &self.0 {
            Security::Plain => {
                // Nobody's name is asked for.
                let _ = host;
                Ok(Box::new(stream))
            }
            #[cfg(feature = "tls")]
            Security::Tls(maker) => Ok(Box::new(rustls_stream::handshake(maker.clone(), stream, host).await?)),
        }
    }
}

/// What can be read from and written to.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_plain() { "Plain" } else { "Tls" })
    }
}

impl TlsStream for Tapped<Secured> {
    fn channel_binding(&self) -> ChannelBinding {
        match self.stream() {
            Secured::Plain(_) => ChannelBinding::none(),
            #[cfg(unix)]
            Secured::Local(_) => ChannelBinding::none(),
            #[cfg(feature = "testkit")]
            Secured::Given(_) => ChannelBinding::none(),
            #[cfg(feature = "tls")]
            Secured::Tls(stream) => stream.channel_binding(),
        }
    }
}

/// Calls a method of whichever stream it is.
macro_rules! either {
    ($secured:expr, $stream:ident => $call:expr) => {
        match $secured.get_mut() {
            Secured::Plain($stream) => $call,
            #[cfg(unix)]
            Secured::Local($stream) => $call,
            #[cfg(feature = "testkit")]
            Secured::Given($stream) => $call,
            #[cfg(feature = "tls")]
            Secured::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Secured {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Secured {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(feature = "tls")]
mod rustls_stream {
    use std::{io, sync::Arc};

    use rustls::{
        ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_cert_signed_by_trust_anchor,
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
        server::ParsedCertificate,
    };
    use tokio::io::{AsyncRead, AsyncWrite};
    use tokio_postgres::{
        Socket,
        tls::{MakeTlsConnect, TlsConnect},
    };
    use tokio_postgres_rustls::MakeRustlsConnect;

    use super::TlsError;
    use crate::config::{Roots, Tls};

    type Stream<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;
    pub(super) type Rustls = Stream<Socket>;

    /// Over a socket of the driver's, or any other.
    pub(super) async fn handshake<S>(mut maker: MakeRustlsConnect, socket: S, host: &str) -> io::Result<Stream<S>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(connect) = MakeTlsConnect::<S>::make_tls_connect(&mut maker, host);
        connect.connect(socket).await
    }

    pub(super) fn connector(tls: &Tls, direct: bool) -> Result<MakeRustlsConnect, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::because("the protocol versions do not fit", error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match tls {
            Tls::VerifyFull(roots) => WebPkiServerVerifier::builder_with_provider(Arc::new(read(roots)?), provider)
                .build()
                .map_err(|error| TlsError::because("no certificate can be verified", error))?,
            Tls::VerifyCa(roots) => Arc::new(Lenient { roots: Some(read(roots)?), provider }),
            Tls::Require | Tls::Disable => Arc::new(Lenient { roots: None, provider }),
        };
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        if direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    /// Trusted authorities. A file with one bad certificate is refused; of the system's, those that can be read count.
    fn read(roots: &Roots) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        match roots {
            Roots::System => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
                if store.is_empty() {
                    let what = "the system has no trusted certificates";
                    return Err(found
                        .errors
                        .into_iter()
                        .next()
                        .map_or_else(|| TlsError::new(what), |error| TlsError::because(what, error)));
                }
            }
            Roots::File(path) => {
                let what = || format!("the trusted certificates in {} cannot be read", path.display());
                let found = CertificateDer::pem_file_iter(path).map_err(|error| TlsError::because(what(), error))?;
                for certificate in found {
                    let certificate = certificate.map_err(|error| TlsError::because(what(), error))?;
                    store.add(certificate).map_err(|error| TlsError::because(what(), error))?;
                }
                if store.is_empty() {
                    return Err(TlsError::new(format!(
                        "{} holds no certificate: name a PEM file in sslrootcert",
                        path.display()
                    )));
                }
            }
        }
        Ok(store)
    }

    /// Looks at no name; and at no authority either, if it has no roots. Whoever answers must still own the key of the
    /// certificate that is shown, or channel binding would bind to nothing.
    #[derive(Debug)]
    struct Lenient {
        roots: Option<RootCertStore>,
        provider: Arc<CryptoProvider>,
    }

    impl ServerCertVerifier for Lenient {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            if let Some(roots) = &self.roots {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            }
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    }
}
