//! Entry points of the fuzz targets: whatever the bytes are, nothing panics.

use bytes::Bytes;

use crate::pgoutput::{self, Message, Tuple};
use crate::value::TypeRegistry;

/// A message of the replication stream, with all its columns.
pub fn pgoutput(bytes: &[u8]) {
    let read = |tuple: &Tuple| {
        let read = tuple.read(|_| true, |_, _| Ok(()));
        assert!(read.is_ok(), "a row that was decoded can be read");
    };
    match pgoutput::decode(Bytes::copy_from_slice(bytes)) {
        Ok(Message::Insert { new, .. }) => read(&new),
        Ok(Message::Update { old, new, .. }) => {
            read(&new);
            old.iter().for_each(|old| read(&old.tuple));
        }
        Ok(Message::Delete { old, .. }) => read(&old.tuple),
        _ => {}
    }
}

/// The text of a value; the first four bytes choose its built-in type.
pub fn value(bytes: &[u8]) {
    if let Some((oid, text)) = bytes.split_first_chunk() {
        let mapping = TypeRegistry::default().mapping(u32::from_be_bytes(*oid) % 6_000);
        // Only text that is not UTF-8 is refused.
        let refused = mapping.value(Bytes::copy_from_slice(text)).is_err();
        assert!(!refused || std::str::from_utf8(text).is_err());
    }
}
