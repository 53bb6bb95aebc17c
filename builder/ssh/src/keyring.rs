//! Keys, and the answers of an agent that has them.

use crate::{
    Key,
    messages::{ASK_IDENTITIES, FAILURE, IDENTITIES, SIGN, SIGNATURE},
    wire::{Reader, put_string},
};

/// The keys of an agent.
#[derive(Debug, Default)]
pub struct Keyring(Vec<Key>);

impl Keyring {
    /// These keys, offered in this order.
    pub fn new(keys: Vec<Key>) -> Keyring {
        Keyring(keys)
    }

    /// What the agent says to a request. A request that it does not know, or cannot do, is [`FAILURE`].
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        match request.split_first() {
            Some((&ASK_IDENTITIES, [])) => self.identities(),
            Some((&SIGN, rest)) => self.signature(rest).unwrap_or_else(|| FAILURE.to_vec()),
            _ => FAILURE.to_vec(),
        }
    }

    fn identities(&self) -> Vec<u8> {
        let mut answer = vec![IDENTITIES];
        answer.extend((self.0.len() as u32).to_be_bytes());
        for key in &self.0 {
            put_string(&mut answer, key.public());
            put_string(&mut answer, key.comment().as_bytes());
        }
        answer
    }

    fn signature(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut from = Reader(request);
        let (wanted, data, flags) = (from.string()?, from.string()?, from.number()?);
        let key = self.0.iter().find(|key| key.public() == wanted)?;
        let mut answer = vec![SIGNATURE];
        put_string(&mut answer, &key.sign(data, flags)?);
        Some(answer)
    }
}
