//! The instance behind every proxy: nginx, on the load's processor. It answers every request with
//! the same kilobyte, over plain HTTP and TLS 1.3, and issues tokens for an hour.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::machine;
use crate::peers::{AUTHORIZATION, Running, Setup, Upstream, free_address};

/// The length of a response's body, in bytes.
pub(crate) const ANSWER: usize = 1_024;

/// The length of a token, in bytes, as at Collibra.
const TOKEN: usize = 1_100;

/// The path whose response has a body of [`LARGE`] bytes.
pub(crate) const BIG: &str = "/big";

/// The path that accepts a body of any length.
pub(crate) const SINK: &str = "/put/body";

/// The length of large bodies, in bytes.
pub(crate) const LARGE: usize = 100_000_000;

/// The name in the origin's certificate.
pub(crate) const NAME: &str = "localhost";

/// The running origin.
pub(crate) struct Origin {
    /// Plain HTTP/1.1.
    plain: SocketAddr,
    /// TLS, HTTP/1.1 and HTTP/2.
    tls: SocketAddr,
    /// TLS, HTTP/1.1, closed after each response.
    closing: SocketAddr,
    /// The token that all proxies attach.
    pub(crate) token: String,
    ca_file: PathBuf,
    running: Running,
}

impl Origin {
    /// Starts it on the processor `load`.
    ///
    /// # Errors
    /// Why it does not start.
    pub(crate) fn start(load: usize) -> Result<Origin, String> {
        let folder = tempfile::tempdir().unwrap();
        let [plain, tls, closing] = [(); 3].map(|()| free_address());
        let token = token();
        certificates(folder.path());
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("put")).unwrap();
        // a sparse file, so that the disk is not measured
        let big = File::create(root.join(&BIG[1..])).unwrap();
        big.set_len(LARGE as u64).unwrap();
        fs::write(
            folder.path().join("nginx.conf"),
            config(folder.path(), [plain, tls, closing], &token),
        )
        .unwrap();
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf"]);
        let ca_file = folder.path().join("ca.pem");
        Ok(Origin {
            plain,
            tls,
            closing,
            token,
            ca_file,
            running: Running::start(folder, command, plain, &[load], Setup::to(Upstream::Plain))?,
        })
    }

    /// The address for this protocol.
    pub(crate) fn address(&self, upstream: Upstream) -> SocketAddr {
        match upstream {
            Upstream::Plain => self.plain,
            Upstream::Tls | Upstream::Http2 => self.tls,
            Upstream::Closing => self.closing,
        }
    }

    /// The end of its output.
    pub(crate) fn last_words(&self) -> String {
        self.running.last_words()
    }

    /// The URL for this protocol.
    pub(crate) fn url(&self, upstream: Upstream) -> String {
        let port = self.address(upstream).port();
        match upstream.is_tls() {
            true => format!("https://{NAME}:{port}"),
            false => format!("http://127.0.0.1:{port}"),
        }
    }

    /// The certificate of the authority that signed the origin's.
    pub(crate) fn ca_file(&self) -> &Path {
        &self.ca_file
    }
}

fn token() -> String {
    let letters = ('a'..='z').chain('0'..='9').cycle();
    letters.take(TOKEN).collect()
}

fn config(folder: &Path, [plain, tls, closing]: [SocketAddr; 3], token: &str) -> String {
    let here = folder.display();
    // nginx closes connections in use if fewer than a sixteenth are free
    let sockets = 4 * machine::most_connections();
    let filler = "x".repeat(ANSWER - 2);
    let answers = format!(
        "location = /rest/oauth/v2/token {{
            return 200 '{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}';
        }}
        location = {AUTHORIZATION} {{ return 200 $http_authorization; }}
        location / {{ return 200 '\"{filler}\"'; }}"
    );
    format!(
        "daemon off; master_process off; pid {here}/pid; error_log stderr warn;
events {{ worker_connections {sockets}; multi_accept on; }}
http {{
    access_log off; tcp_nodelay on; sendfile on; client_max_body_size 0;
    keepalive_requests 1000000000; keepalive_timeout 1h; http2_max_concurrent_streams 256;
    client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
    default_type application/json;
    ssl_certificate {here}/origin.pem; ssl_certificate_key {here}/origin.key;
    ssl_protocols TLSv1.3; ssl_session_cache shared:sessions:4m;
    server {{
        listen {plain} backlog=4096;
        listen {tls} ssl http2 backlog=4096;
        root {here}/root;
        location = {BIG} {{ }}
        location = {SINK} {{ dav_methods PUT; }}
        {answers}
    }}
    server {{
        listen {closing} ssl backlog=4096;
        keepalive_timeout 0;
        {answers}
    }}
}}
"
    )
}

/// Creates an authority in `ca.pem`, a certificate of it in `origin.pem`, and its key in
/// `origin.key`.
fn certificates(folder: &Path) {
    let mut ca = CertificateParams::new([]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // with equal names of issuer and subject it would count as self-signed
    ca.distinguished_name
        .push(DnType::CommonName, "bench authority");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, NAME);
    let certificate = params.signed_by(&key, &ca).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    fs::write(folder.join("origin.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("origin.key"), key.serialize_pem()).unwrap();
}
