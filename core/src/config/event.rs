//! Events: what a config asks for of the rows of a table, beside the buckets that they enter.

use bytes::Bytes;
use bytestring::ByteString;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::write_checkpoint::{ClientKey, WriteCheckpoint, WriteCheckpointRequest};

/// Events whose payloads are write checkpoints that an application's backend writes itself: the older name and the newer.
pub(super) const WRITE_CHECKPOINTS: [&str; 2] = ["write_checkpoints", "checkpoint_requests"];
/// What such a payload must have; `client_id` may be missing.
pub(super) const REQUIRED: [&str; 2] = ["user_id", "checkpoint"];

/// Whether something takes the events of this name.
pub(crate) fn is_taken(name: &str) -> bool {
    WRITE_CHECKPOINTS.contains(&name)
}

/// What an event of the config is given of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvaluatedEvent {
    /// The event's name.
    pub event: ByteString,
    /// The payload as a JSON object.
    pub data: Bytes,
}

/// The payload of a write checkpoint.
#[derive(Debug, Deserialize)]
struct Payload {
    user_id: Option<Scalar>,
    client_id: Option<Scalar>,
    checkpoint: Option<Scalar>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Integer(i64),
    Text(String),
    Other(IgnoredAny),
}

impl Scalar {
    fn into_text(self) -> Option<String> {
        match self {
            Self::Integer(integer) => Some(integer.to_string()),
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }

    fn into_number(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            Self::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Self::Text(_) | Self::Other(_) => None,
        }
    }
}

impl EvaluatedEvent {
    /// The write checkpoint that this event confirms, and whose it is. `None` for an event of another name than
    /// `write_checkpoints` and `checkpoint_requests`.
    ///
    /// # Errors
    /// `Invalid` if the payload has no user, or no number that a client may name.
    pub fn write_checkpoint(&self) -> Result<Option<(ClientKey, WriteCheckpoint)>> {
        if !is_taken(&self.event) {
            return Ok(None);
        }
        let payload: Payload = serde_json::from_slice(&self.data)
            .map_err(|error| Error::internal("the payload of an event cannot be read").caused_by(error))?;
        let wrong = |column, what| Error::invalid(format!("`{column}` of the event `{}` is not {what}", self.event));
        let user = payload.user_id.and_then(Scalar::into_text);
        let user = user.ok_or_else(|| wrong("user_id", "the id of a user"))?;
        let client = match payload.client_id {
            None => None,
            Some(client) => Some(client.into_text().ok_or_else(|| wrong("client_id", "the id of a client"))?),
        };
        let number = payload.checkpoint.and_then(Scalar::into_number).map(WriteCheckpoint);
        let number = number.filter(|number| WriteCheckpointRequest::AtLeast(*number).check().is_ok());
        let number = number.ok_or_else(|| wrong("checkpoint", "a whole number from 1 to 2^62"))?;
        Ok(Some((ClientKey::new(&Identity::new(user), client.as_deref()), number)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(event: &str, data: &str) -> Result<Option<(ClientKey, WriteCheckpoint)>> {
        EvaluatedEvent { event: event.into(), data: Bytes::from(data.to_owned()) }.write_checkpoint()
    }

    fn confirmed(data: &str) -> (String, i64) {
        let (client, number) = read("write_checkpoints", data).unwrap().unwrap();
        (client.0.to_string(), number.0)
    }

    #[test]
    fn a_payload_names_a_client_and_its_number() {
        assert_eq!(confirmed(r#"{"user_id":"u","client_id":"c","checkpoint":7}"#), ("1:u/c".into(), 7));
        assert_eq!(confirmed(r#"{"checkpoint":"0012","client_id":3,"user_id":42,"id":[]}"#), ("2:42/3".into(), 12));
        assert_eq!(confirmed(r#"{"user_id":"u","client_id":null,"checkpoint":1}"#), ("1:u".into(), 1));
        assert_eq!(confirmed(r#"{"user_id":"u","checkpoint":4611686018427387904}"#), ("1:u".into(), 1 << 62));
        let newer = read("checkpoint_requests", r#"{"user_id":"u","checkpoint":1}"#).unwrap();
        assert_eq!(newer, Some((ClientKey("1:u".into()), WriteCheckpoint(1))));
        assert_eq!(read("others", "no payload").unwrap(), None);
    }

    #[test]
    fn a_payload_that_confirms_nothing_says_why() {
        for (column, data) in [
            ("user_id", r#"{"checkpoint":1}"#),
            ("user_id", r#"{"user_id":null,"checkpoint":1}"#),
            ("user_id", r#"{"user_id":1.5,"checkpoint":1}"#),
            ("client_id", r#"{"user_id":"u","client_id":0.5,"checkpoint":1}"#),
            ("checkpoint", r#"{"user_id":"u"}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":0}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":-3}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":1.0}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":"+1"}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":""}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":4611686018427387905}"#),
            ("checkpoint", r#"{"user_id":"u","checkpoint":"9223372036854775808"}"#),
        ] {
            let error = read("write_checkpoints", data).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Invalid);
            assert!(error.message().contains(&format!("`{column}`")), "{error} of {data}");
        }
    }
}
