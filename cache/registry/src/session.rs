//! A question to one host, with the login that it asks for.

use reqwest::{
    Method, Response, StatusCode,
    header::{HeaderMap, WWW_AUTHENTICATE},
};

use crate::{
    Client,
    challenge::{self, Challenge},
    error::Fault,
    route::Endpoint,
    token::{Identity, Pass, Refused},
    transport::blocking,
    wire::{Call, clean, refusal},
};

/// What is asked of a repository.
pub(crate) struct Question<'a> {
    pub method: Method,
    /// Below the repository: `blobs/sha256:…`.
    pub path: &'a str,
    /// Media types, separated by commas.
    pub accept: Option<&'a str>,
    /// The first byte that is wanted, when it is not the first that there is.
    pub from: Option<u64>,
}

impl Client {
    /// Asks one host once; when it wants a login, gets one and asks again.
    ///
    /// # Errors
    /// Any answer that is no success, and all that prevents one.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, question: &Question<'_>) -> Result<Response, Fault> {
        let idle = self.limits().idle;
        let mut pass = self.passes().held(endpoint).await;
        let mut renewed = false;
        loop {
            let call = Call {
                method: question.method.clone(),
                accept: question.accept,
                from: question.from,
                authorization: pass.as_ref().map(|pass| pass.header.clone()),
                ..Call::get(endpoint.url(question.path), &endpoint.trust)
            };
            let answer = self.transports().send(call, idle).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer.response);
            }
            if status == StatusCode::UNAUTHORIZED && answer.from_asked && !renewed {
                let challenges = challenges(answer.response.headers())?;
                if let Some(newer) = self.renew(endpoint, &challenges, pass.as_ref()).await? {
                    pass = Some(newer);
                    renewed = true;
                    continue;
                }
            }
            let login = matches!(&pass, Some(Pass { identity: Identity::Ours, .. }));
            let fault = refusal(answer.response, login, idle).await;
            return Err(match (fault, pass) {
                (
                    Fault::Unauthorized { .. } | Fault::Denied { .. },
                    Some(Pass { identity: Identity::Unread(error), .. }),
                ) => Fault::Credentials(error),
                (fault, _) => fault,
            });
        }
    }

    async fn renew(
        &self,
        endpoint: &Endpoint,
        challenges: &[Challenge],
        sent: Option<&Pass>,
    ) -> Result<Option<Pass>, Fault> {
        let refused = Refused { endpoint, challenges, sent, actions: "pull" };
        let credentials = self.credentials();
        let (registry, repository) = (endpoint.registry.clone(), endpoint.repository.clone());
        let login = blocking(move || Ok(credentials.for_registry(&registry, &repository)?));
        self.passes().renew(&refused, self.transports(), self.limits(), login).await
    }
}

/// The ways to log in that a 401 offers.
fn challenges(headers: &HeaderMap) -> Result<Vec<Challenge>, Fault> {
    let texts: Vec<&str> =
        headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let challenges: Vec<Challenge> = texts.iter().flat_map(|text| challenge::parse(text)).collect();
    if challenges.is_empty() && !texts.is_empty() {
        return Err(Fault::Challenge { challenge: clean(&texts.join(", "), 200) });
    }
    Ok(challenges)
}
