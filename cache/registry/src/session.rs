//! A question to one host, with the login that it asks for.

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{HeaderMap, WWW_AUTHENTICATE},
};

use crate::{
    Client,
    challenge::{self, Challenge},
    error::Fault,
    route::Endpoint,
    token::{Access, Identity, Pass, Refused},
    transport::blocking,
    wire::{Call, Sent, clean, refusal},
};

/// What is asked of a repository.
pub(crate) struct Question<'a> {
    pub method: Method,
    pub place: Place<'a>,
    /// Media types, separated by commas.
    pub accept: Option<&'a str>,
    /// The first byte that is wanted, when it is not the first that there is.
    pub from: Option<u64>,
    /// What is sent with it.
    pub sent: Option<&'a Sent<'a>>,
    pub access: &'a Access,
}

/// Where a question is put.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Below the repository: `blobs/sha256:…`.
    Below(&'a str),
    /// Below the repository, with a query.
    With(&'a str, &'a [(&'a str, &'a str)]),
    /// Where an answer said: the address of an upload.
    At(&'a Url),
}

impl<'a> Question<'a> {
    /// A question that changes nothing.
    pub(crate) fn read(method: Method, path: &'a str) -> Question<'a> {
        Question {
            method,
            place: Place::Below(path),
            accept: None,
            from: None,
            sent: None,
            access: &Access::PULL,
        }
    }
}

impl Client {
    /// Asks one host once; when it wants a login, gets one and asks again.
    ///
    /// # Errors
    /// Any answer that is no success, and all that prevents one.
    pub(crate) async fn ask(&self, endpoint: &Endpoint, question: &Question<'_>) -> Result<Response, Fault> {
        let idle = self.limits().idle;
        let mut pass = self.passes().held(endpoint, question.access).await;
        let url = match question.place {
            Place::Below(path) => endpoint.url(path),
            Place::With(path, pairs) => {
                let mut url = endpoint.url(path);
                url.query_pairs_mut().extend_pairs(pairs);
                url
            }
            Place::At(url) => url.clone(),
        };
        // An upload may go to another host, which is told no login of this one.
        let own = url.origin() == endpoint.base.origin();
        let mut renewed = false;
        loop {
            let call = Call {
                method: question.method.clone(),
                accept: question.accept,
                from: question.from,
                sent: question.sent,
                authorization: pass.as_ref().filter(|_| own).map(|pass| pass.header.clone()),
                ..Call::get(url.clone(), &endpoint.trust)
            };
            let answer = self.transports().send(call, idle).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer.response);
            }
            if status == StatusCode::UNAUTHORIZED && answer.from_asked && own && !renewed {
                let challenges = challenges(answer.response.headers())?;
                if let Some(newer) = self.renew(endpoint, question.access, &challenges, pass.as_ref()).await?
                {
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
        access: &Access,
        challenges: &[Challenge],
        sent: Option<&Pass>,
    ) -> Result<Option<Pass>, Fault> {
        let refused = Refused { endpoint, challenges, sent, access };
        let credentials = self.credentials();
        let (registry, repository) = (endpoint.registry.clone(), endpoint.repository.clone());
        let login = blocking(move || Ok(credentials.for_registry(&registry, &repository)?));
        self.passes().renew(&refused, self.transports(), self.limits(), login).await
    }
}

/// The ways to log in that a 401 offers.
pub(crate) fn challenges(headers: &HeaderMap) -> Result<Vec<Challenge>, Fault> {
    let texts: Vec<&str> =
        headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let challenges: Vec<Challenge> = texts.iter().flat_map(|text| challenge::parse(text)).collect();
    if challenges.is_empty() && !texts.is_empty() {
        return Err(Fault::Challenge { challenge: clean(&texts.join(", "), 200) });
    }
    Ok(challenges)
}
