//! A token server as docker-registry's `auth: token` wants one (distribution project, token authentication): it knows one user, says
//! who may do what, and signs that with RS256 and its certificate in `x5c`. OpenSSL makes the key and the signatures.

use std::{
    fs,
    io::{self, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::json;

use crate::{listener::Listener, server::Request};

/// The name that the server and its registries give each other.
pub const SERVICE: &str = "test";

/// Who is known, and how.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `name:password`; may do everything. Everybody else may read below `public/`.
    pub user: String,
    /// An identity token of the same user.
    pub identity: String,
    /// Whether the question may be a POST.
    pub posts: bool,
}

/// A running server; it ends when this value is dropped.
pub struct TokenServer {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    rules: Rules,
    folder: PathBuf,
    log: Mutex<Vec<String>>,
    tokens: Mutex<Vec<String>>,
}

impl TokenServer {
    /// Makes a key and a certificate in `folder` and serves on a free port.
    ///
    /// # Errors
    /// OpenSSL failed, or no port is free.
    pub fn start(folder: &Path, rules: Rules) -> io::Result<TokenServer> {
        let key =
            "req -x509 -newkey rsa:2048 -nodes -keyout token.key -out token.pem -subj /CN=tokens -days 2";
        openssl(folder, key, b"")?;
        let shared = Arc::new(Shared {
            rules,
            folder: folder.to_owned(),
            log: Mutex::default(),
            tokens: Mutex::default(),
        });
        let served = shared.clone();
        let listener = Listener::start(move |stream, _| served.answer(stream))?;
        Ok(TokenServer { listener, shared })
    }

    /// The lines of docker-registry's configuration by which it believes this server.
    pub fn registry_lines(&self) -> String {
        let bundle = self.shared.folder.join("token.pem");
        format!(
            "auth: {{token: {{realm: \"http://{}/token\", service: {SERVICE}, issuer: {SERVICE}, rootcertbundle: {}}}}}",
            self.listener.address(),
            bundle.display()
        )
    }

    /// What was asked since this was last called: method, who, status.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All tokens that were given.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = Request::read(&mut BufReader::new(stream.try_clone()?))?;
        let form = match request.method.as_str() {
            "POST" => String::from_utf8_lossy(&request.body).into_owned(),
            _ => request.target.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default(),
        };
        let pairs: Vec<(String, String)> = form
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let basic = request.headers.get("authorization").and_then(|header| header.strip_prefix("Basic "));
        let basic = basic.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let basic = basic.and_then(|bytes| String::from_utf8(bytes).ok());
        let known = match (&basic, value("refresh_token")) {
            (Some(login), _) if *login == self.rules.user => Some(true),
            (Some(login), _) if *login == format!(":{}", self.rules.identity) => Some(true),
            (None, Some(token)) if token == self.rules.identity => Some(true),
            (None, None) => Some(false),
            _ => None,
        };
        let (status, body) = match known {
            _ if request.method == "POST" && !self.rules.posts => (405, json!({})),
            None => (401, json!({"details": "incorrect username or password"})),
            Some(known) => {
                let scopes = pairs.iter().filter(|(key, _)| key == "scope").map(|(_, value)| value.as_str());
                let token = self.token(known, scopes.flat_map(str::split_whitespace))?;
                self.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token.clone());
                (200, json!({"token": token, "expires_in": 300}))
            }
        };
        let who = match known {
            Some(true) => "user",
            Some(false) => "nobody",
            None => "stranger",
        };
        let line = format!("{} {who} {status}", request.method);
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        stream.flush()
    }

    fn token<'a>(&self, known: bool, scopes: impl Iterator<Item = &'a str>) -> io::Result<String> {
        let mut access = Vec::new();
        for scope in scopes {
            let mut parts = scope.splitn(3, ':');
            let (Some(kind), Some(name), Some(actions)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let may = |action: &&str| known || (*action == "pull" && name.starts_with("public/"));
            let actions: Vec<&str> = actions.split(',').filter(may).collect();
            access.push(json!({"type": kind, "name": name, "actions": actions}));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let pem = fs::read_to_string(self.folder.join("token.pem"))?;
        let certificate: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
        let claims = json!({
            "iss": SERVICE, "sub": "", "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1",
            "access": access,
        });
        let encoded = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = openssl(&self.folder, "dgst -sha256 -sign token.key", signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Runs OpenSSL in a folder with this on its standard input, and gives its standard output.
///
/// # Errors
/// It is not there, or what it said.
pub fn openssl(folder: &Path, words: &str, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(words.split(' '));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().expect("it was asked for").write_all(input)?;
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => {
            Err(io::Error::other(format!("openssl {words}: {}", String::from_utf8_lossy(&output.stderr))))
        }
    }
}

/// Without the `%XX` and `+` of a form.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
