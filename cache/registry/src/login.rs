//! Whether a registry accepts a login.

use oci::Reference;
use reqwest::{Method, StatusCode};

use crate::{
    Client, Login,
    error::{Error, Fault, What},
    route::Endpoint,
    session::challenges,
    token::{Access, Refused, obtain},
    wire::{Call, refusal},
};

impl Client {
    /// Asks a registry whether it knows a login (distribution-spec v1.1, § Determining Support). One that asks nobody who
    /// they are accepts all.
    ///
    /// # Errors
    /// It does not, or it could not be asked.
    pub async fn check_login(&self, registry: &str, login: &Login) -> Result<(), Error> {
        // There is no repository in this question; the route wants one.
        let reference = Reference {
            registry: registry.to_owned(),
            repository: "library/login".to_owned(),
            tag: None,
            digest: None,
        };
        let mut route = self.push_route(&reference, What::Login)?;
        loop {
            match self.try_login(route.endpoint(), login).await {
                Ok(()) => {
                    self.learn(&route);
                    return Ok(());
                }
                Err(fault) => route.after(fault).await?,
            }
        }
    }

    async fn try_login(&self, endpoint: &Endpoint, login: &Login) -> Result<(), Fault> {
        let idle = self.limits().idle;
        let asked = Call { method: Method::GET, ..Call::get(endpoint.api.clone(), &endpoint.trust) };
        let answer = self.transports().send(asked.clone(), idle).await?.response;
        if answer.status().is_success() {
            return Ok(());
        }
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Err(refusal(answer, false, idle).await);
        }
        let challenges = challenges(answer.headers())?;
        let refused = Refused { endpoint, challenges: &challenges, sent: None, access: &Access::NOTHING };
        let found = obtain(&refused, Some(login.clone()), self.transports(), self.limits()).await?;
        let Some((header, _)) = found else { return Err(refusal(answer, false, idle).await) };
        let call = Call { authorization: Some(header), ..asked };
        let answer = self.transports().send(call, idle).await?.response;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(refusal(answer, true, idle).await),
        }
    }
}
