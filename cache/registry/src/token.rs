//! Passes: what is sent as `Authorization`, kept for each registry and repository until it expires.
//!
//! A pass is a token of the registry's token server (the distribution project's token authentication; OAuth
//! 2, RFC 6749, for identity tokens) or a name and password. Many layers of one image are asked for at once;
//! the first to be refused gets the pass, the others wait for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, Url, header::HeaderValue};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use crate::{
    challenge::Challenge,
    credentials::{CredentialsError, Login, Secret},
    error::Fault,
    route::{Endpoint, is_loopback},
    settings::Limits,
    transport::Transports,
    wire::{Call, body, clean, host_of, refusal},
};

/// The lifetime of a token that tells none, and the shortest that is believed (distribution project, token
/// authentication).
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

/// A token is renewed this long before its end, so that it does not end on the way.
const MARGIN: Duration = Duration::from_secs(10);

/// How much of a token server's answer is read.
const TOKEN_BYTES: u64 = 1 << 20;

/// What is sent to show that we may.
#[derive(Clone)]
pub(crate) struct Pass {
    pub header: HeaderValue,
    pub identity: Identity,
}

/// Whose pass it is.
#[derive(Clone)]
pub(crate) enum Identity {
    /// Anyone's: there was no login.
    Nobody,
    /// Ours.
    Ours,
    /// Anyone's, because the login could not be read. Worth a try: most images are public.
    Unread(CredentialsError),
}

/// Registry, repository and rights, since a token is for some rights on one repository and a login may be too.
type Key = (String, String, Access);

/// The rights that a question needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    /// Of the repository that is asked: `pull`, or `pull,push`.
    actions: &'static str,
    /// Another repository that is read from: a blob is mounted from there.
    also: Option<String>,
}

impl Access {
    /// To read.
    pub(crate) const PULL: Access = Access { actions: "pull", also: None };
    /// To write.
    pub(crate) const PUSH: Access = Access { actions: "pull,push", also: None };

    /// Nothing but that the login is right.
    pub(crate) const NOTHING: Access = Access { actions: "", also: None };

    /// To write, and to read another repository of the same registry.
    pub(crate) fn push_and_pull(other: &str) -> Access {
        Access { also: Some(other.to_owned()), ..Access::PUSH }
    }

    /// The scopes of a token (distribution project, token scope), with what the registry itself asked for.
    fn scopes(&self, repository: &str, told: Option<&str>) -> String {
        if *self == Access::NOTHING {
            return String::new();
        }
        let own = format!("repository:{repository}:{}", self.actions);
        let also = self.also.iter().map(|other| format!("repository:{other}:pull"));
        let mut scopes: Vec<String> =
            told.into_iter().flat_map(str::split_ascii_whitespace).map(str::to_owned).collect();
        // A registry that tells a scope knows best what it calls a repository that is only read.
        if scopes.is_empty() || *self != Access::PULL {
            scopes.extend(std::iter::once(own).chain(also));
        }
        let mut once = Vec::new();
        for scope in scopes {
            if !once.contains(&scope) {
                once.push(scope);
            }
        }
        once.join(" ")
    }
}

struct Held {
    pass: Pass,
    /// `None`: no end.
    until: Option<Instant>,
}

/// The passes that there are.
#[derive(Default)]
pub(crate) struct Passes {
    slots: Mutex<BTreeMap<Key, Arc<Mutex<Option<Held>>>>>,
}

/// A request that was refused with 401.
pub(crate) struct Refused<'a> {
    pub endpoint: &'a Endpoint,
    pub challenges: &'a [Challenge],
    /// The pass that was sent.
    pub sent: Option<&'a Pass>,
    pub access: &'a Access,
}

impl Passes {
    async fn slot(&self, endpoint: &Endpoint, access: &Access) -> Arc<Mutex<Option<Held>>> {
        let key = (endpoint.registry.clone(), endpoint.repository.clone(), access.clone());
        self.slots.lock().await.entry(key).or_default().clone()
    }

    /// The pass for a repository, if there is one that has not expired.
    pub(crate) async fn held(&self, endpoint: &Endpoint, access: &Access) -> Option<Pass> {
        let slot = self.slot(endpoint, access).await;
        let held = slot.lock().await;
        held.as_ref().filter(|held| held.is_fresh()).map(|held| held.pass.clone())
    }

    /// Gets another pass than the one that was refused. `login` is asked for only if no other request got
    /// one meanwhile.
    ///
    /// `None` when there is none to be had: nobody is logged in, or the login itself was refused.
    ///
    /// # Errors
    /// What the token server did, or why the login could not be read where nothing goes without.
    pub(crate) async fn renew(
        &self,
        refused: &Refused<'_>,
        transports: &Transports,
        limits: &Limits,
        login: impl Future<Output = Result<Option<Login>, Fault>>,
    ) -> Result<Option<Pass>, Fault> {
        let slot = self.slot(refused.endpoint, refused.access).await;
        let mut held = slot.lock().await;
        let sent = refused.sent.map(|pass| &pass.header);
        if let Some(newer) = held.as_ref().filter(|held| held.is_fresh() && Some(&held.pass.header) != sent) {
            return Ok(Some(newer.pass.clone()));
        }
        *held = None;
        let (login, identity) = match login.await {
            Ok(None) => (None, Identity::Nobody),
            Ok(Some(login)) => (Some(login), Identity::Ours),
            Err(Fault::Credentials(error)) => (None, Identity::Unread(error)),
            Err(fault) => return Err(fault),
        };
        let found = obtain(refused, login, transports, limits).await;
        let (header, life) = match (found, &identity) {
            (Ok(Some(found)), _) => found,
            // What is missing is the login, whatever the token server says about its absence.
            (Ok(None), Identity::Unread(error)) => return Err(error.clone().into()),
            (Err(fault), Identity::Unread(error)) if is_refusal(&fault) => return Err(error.clone().into()),
            (Ok(None), _) => return Ok(None),
            (Err(fault), _) => return Err(fault),
        };
        if Some(&header) == sent {
            return Ok(None);
        }
        let pass = Pass { header, identity };
        *held = Some(Held { pass: pass.clone(), until: life.map(|life| Instant::now() + life) });
        Ok(Some(pass))
    }
}

impl Held {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

fn is_refusal(fault: &Fault) -> bool {
    match fault {
        Fault::Token { fault, .. } => is_refusal(fault),
        Fault::Unauthorized { .. } | Fault::Denied { .. } | Fault::Status { status: 400, .. } => true,
        _ => false,
    }
}

/// A header, and how long it is good.
pub(crate) type Found = (HeaderValue, Option<Duration>);

pub(crate) async fn obtain(
    refused: &Refused<'_>,
    login: Option<Login>,
    transports: &Transports,
    limits: &Limits,
) -> Result<Option<Found>, Fault> {
    if let Some(Login::Token(token)) = &login {
        return Ok(authorization("Bearer", token.reveal()).map(|header| (header, None)));
    }
    let bearer = refused.challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    if let Some(Challenge::Bearer { realm, service, scope }) = bearer {
        let request = TokenRequest {
            endpoint: refused.endpoint,
            realm: realm_url(refused.endpoint, realm, login.is_some())?,
            service: service.as_deref(),
            scope: refused.access.scopes(&refused.endpoint.repository, scope.as_deref()),
        };
        return request.send(login.as_ref(), transports, limits).await.map(Some);
    }
    match &login {
        Some(Login::Password { username, password }) => {
            Ok(basic(username, password).map(|header| (header, None)))
        }
        _ => Ok(None),
    }
}

/// The token server's address, if a login may go there.
fn realm_url(endpoint: &Endpoint, realm: &str, login: bool) -> Result<Url, Fault> {
    let bad = |why| Fault::Realm { realm: clean(realm, 200), why };
    let url = Url::parse(realm).map_err(|_| bad("which is no address"))?;
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" => Ok(url),
        // Where the registry itself is reached without protection, a login has none anyway.
        "http" if !login || is_loopback(host) || endpoint.trust.is_unprotected() => Ok(url),
        "http" => Err(bad("which is not protected by TLS")),
        _ => Err(bad("which is neither HTTP nor HTTPS")),
    }
}

struct TokenRequest<'a> {
    endpoint: &'a Endpoint,
    realm: Url,
    service: Option<&'a str>,
    scope: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    /// Seconds. A shape that is no number is no reason to refuse the token.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl TokenRequest<'_> {
    async fn send(
        &self,
        login: Option<&Login>,
        transports: &Transports,
        limits: &Limits,
    ) -> Result<Found, Fault> {
        let server = host_of(&self.realm);
        let wrapped = |fault| Fault::Token { server: server.clone(), fault: Box::new(fault) };
        let mut answer = transports.send(self.call(login), limits.idle).await.map_err(wrapped)?;
        // Some servers know one form of the question only (containerd meets them at GCR and JFrog).
        if let (Some(Login::Identity(token)), 404 | 405) = (login, answer.response.status().as_u16()) {
            answer = transports.send(self.get(basic("", token)), limits.idle).await.map_err(wrapped)?;
        }
        if !answer.response.status().is_success() {
            return Err(wrapped(refusal(answer.response, login.is_some(), limits.idle).await));
        }
        let bytes = body(answer.response, TOKEN_BYTES, limits.idle).await.map_err(wrapped)?;
        let none = |why| Fault::NoToken { server: server.clone(), why };
        let answer: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|_| none("it is not the expected JSON"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.reveal().is_empty());
        let token = token.ok_or_else(|| none("`token` and `access_token` are missing"))?;
        let header = authorization("Bearer", token.reveal());
        let header = header.ok_or_else(|| none("the token has letters that no header may have"))?;
        Ok((header, Some(life(answer.expires_in.as_f64()))))
    }

    /// GET with a name and password or with nothing; POST where a refresh token is exchanged, which must not
    /// stand in an address.
    fn call(&self, login: Option<&Login>) -> Call<'_> {
        let mut pairs = self.service_pair();
        if let Some(Login::Identity(token)) = login {
            pairs.extend([("scope", self.scope.as_str()), ("client_id", "kiln")]);
            pairs.extend([("grant_type", "refresh_token"), ("refresh_token", token.reveal())]);
            let form = Some(encode(&pairs));
            return Call {
                method: Method::POST,
                form,
                ..Call::get(self.realm.clone(), &self.endpoint.trust)
            };
        }
        self.get(match login {
            Some(Login::Password { username, password }) => basic(username, password),
            _ => None,
        })
    }

    fn get(&self, authorization: Option<HeaderValue>) -> Call<'_> {
        let mut pairs = self.service_pair();
        pairs.extend(self.scope.split_ascii_whitespace().map(|scope| ("scope", scope)));
        let mut url = self.realm.clone();
        url.query_pairs_mut().extend_pairs(pairs);
        Call { authorization, ..Call::get(url, &self.endpoint.trust) }
    }

    fn service_pair(&self) -> Vec<(&str, &str)> {
        self.service.iter().map(|service| ("service", *service)).collect()
    }
}

/// How long a token is used: never shorter than a minute is promised, and not longer than a day is believed.
fn life(seconds: Option<f64>) -> Duration {
    let told = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(SHORTEST_LIFE);
    told.clamp(SHORTEST_LIFE, Duration::from_secs(86_400)) - MARGIN
}

fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    authorization("Basic", &BASE64_STANDARD.encode(format!("{username}:{}", password.reveal())))
}

/// The header, marked so that no library prints it; `None` when the secret has letters that no header may have.
fn authorization(scheme: &str, secret: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {secret}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `application/x-www-form-urlencoded`, which is how an address's query is written.
fn encode(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://localhost/").expect("the text is an address");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Trust;

    #[test]
    fn a_login_goes_to_protected_servers_only() {
        let endpoint = |trust, base: &str| Endpoint {
            registry: "r.example".into(),
            repository: "x".into(),
            api: base.parse().expect("an address"),
            base: base.parse().expect("an address"),
            trust,
            namespace: None,
        };
        let tls = endpoint(Trust::System, "https://r.example/v2/x/");
        let plain = endpoint(Trust::Plain, "http://r.example/v2/x/");
        for (endpoint, realm, login, goes) in [
            (&tls, "https://auth.example/token", true, true),
            (&tls, "http://auth.example/token", true, false),
            (&tls, "http://auth.example/token", false, true),
            (&tls, "http://127.0.0.1/token", true, true),
            (&plain, "http://auth.example/token", true, true),
            (&plain, "file:///token", false, false),
            (&plain, "token", false, false),
        ] {
            assert_eq!(realm_url(endpoint, realm, login).is_ok(), goes, "{realm}");
        }
    }

    #[test]
    fn scopes_are_what_was_told_and_what_is_needed() {
        let mount = Access::push_and_pull("base");
        for (access, told, scopes) in [
            (&Access::PULL, None, "repository:a:pull"),
            (&Access::PULL, Some("repository:x/a:pull"), "repository:x/a:pull"),
            (&Access::PUSH, Some("repository:a:pull"), "repository:a:pull repository:a:pull,push"),
            (&Access::PUSH, Some("repository:a:pull,push"), "repository:a:pull,push"),
            (&mount, None, "repository:a:pull,push repository:base:pull"),
        ] {
            assert_eq!(access.scopes("a", told), scopes, "{access:?} {told:?}");
        }
    }

    #[test]
    fn lives_are_bounded() {
        for (told, seconds) in [
            (None, 50),
            (Some(1.0), 50),
            (Some(300.0), 290),
            (Some(1e300), 50),
            (Some(-1.0), 50),
            (Some(1e9), 86_390),
        ] {
            assert_eq!(life(told), Duration::from_secs(seconds), "{told:?}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull"), ("t", "a&b=c d")]),
            "scope=repository%3Aa%2Fb%3Apull&t=a%26b%3Dc+d"
        );
    }
}
