//! The file: the state as it was when it was opened, then each event since. Each is a frame: the length and the checksum of
//! its bytes, four bytes each, and the bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use syncline_core::{Checksum, Error, Result};

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// Locked, so that no other process has the journal; also the file that was there before.
    _before: Option<File>,
    /// A write failed: nobody knows what is in the file.
    failed: bool,
}

fn failed(error: io::Error) -> Error {
    Error::unavailable("the journal cannot be used").caused_by(error)
}

fn frame(value: &impl Serialize) -> Result<Vec<u8>> {
    let too_large = |_| Error::invalid("this is too large for the journal");
    let bytes = postcard::to_stdvec(value).map_err(|error| Error::internal("a frame").caused_by(error))?;
    let length = u32::try_from(bytes.len()).map_err(too_large)?;
    let sum = Checksum::of_put("", "", &bytes);
    Ok([&length.to_le_bytes()[..], &sum.0.to_le_bytes(), &bytes].concat())
}

/// Takes the next frame off. `None` at the end, also if that was cut.
fn unframe<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<Option<T>> {
    let Some(([a, b, c, d, sum @ ..], rest)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
    let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
    if length == 0 || length > rest.len() {
        return Ok(None);
    }
    let (content, rest) = rest.split_at(length);
    if Checksum::of_put("", "", content).0 != u32::from_le_bytes(*sum) {
        // Each frame was synced before the next was begun, so that only the last one can be cut.
        return if rest.is_empty() { Ok(None) } else { Err(Error::data("the journal is damaged")) };
    }
    *bytes = rest;
    postcard::from_bytes(content).map(Some).map_err(|error| Error::data("a frame of the journal").caused_by(error))
}

impl Journal {
    /// Opens or makes a journal: `replay` brings what is in it up to date, and what it returns is what the file holds then.
    pub(crate) fn open<S, E>(path: &Path, replay: impl FnOnce(Option<S>, Vec<E>) -> Result<S>) -> Result<(Self, S)>
    where
        S: Serialize + DeserializeOwned,
        E: DeserializeOwned,
    {
        let lock = |file: &File| file.try_lock().map_err(|error| Error::unavailable("it is in use").caused_by(error));
        let (mut bytes, mut before) = (Vec::new(), None);
        if path.try_exists().map_err(failed)? {
            let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(failed)?;
            lock(&file)?;
            file.read_to_end(&mut bytes).map_err(failed)?;
            before = Some(file);
        }
        let mut rest = &bytes[..];
        let state = unframe(&mut rest)?;
        if state.is_none() && before.is_some() {
            return Err(Error::data("the file is no journal"));
        }
        let events = std::iter::from_fn(|| unframe(&mut rest).transpose()).collect::<Result<_>>()?;
        let state = replay(state, events)?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&new).map_err(failed)?;
        lock(&file)?;
        file.set_len(0).map_err(failed)?;
        let bytes = frame(&state)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok((Self { file, _before: before, failed: false }, state))
    }

    /// Adds an event. It is durable when this returns.
    pub(crate) fn append(&mut self, event: &impl Serialize) -> Result<()> {
        if self.failed {
            return Err(Error::unavailable("an earlier write failed; the store must be opened again"));
        }
        let bytes = frame(event)?;
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        self.failed = written.is_err();
        written.map_err(failed)
    }
}
