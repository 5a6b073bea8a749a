//! Everything that checks find wrong, told together.

use syncline_core::{Error, ErrorKind};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<(ErrorKind, String)>,
}

impl Findings {
    /// One more problem. Its kind says whether replication may wait for its end.
    pub(crate) fn add(&mut self, kind: ErrorKind, problem: impl Into<String>) {
        self.list.push((kind, problem.into()));
    }

    /// One more problem, which was met as an error.
    pub(crate) fn add_error(&mut self, error: &Error) {
        self.add(error.kind(), error.to_string());
    }

    /// What to tell if an error ends the checks: it comes last.
    pub(crate) fn and(mut self, error: Error) -> Error {
        if self.list.is_empty() {
            return error;
        }
        self.add_error(&error);
        self.finish().err().unwrap_or(error)
    }

    /// # Errors
    /// With all problems, one a line if there are several; waiting helps only if it helps against each of them.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let kind = match self.list.iter().find(|(kind, _)| *kind != ErrorKind::Unavailable) {
            Some((kind, _)) => *kind,
            None => ErrorKind::Unavailable,
        };
        match self.list.as_slice() {
            [] => Ok(()),
            [(_, problem)] => Err(Error::new(kind, problem.clone())),
            several => {
                let lines: String = several.iter().map(|(_, problem)| format!("\n- {problem}")).collect();
                Err(Error::new(kind, format!("{} things are wrong:{lines}", several.len())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn several_problems_stand_in_lines_of_their_own() {
        assert!(Findings::default().finish().is_ok());
        let mut findings = Findings::default();
        findings.add(ErrorKind::Unavailable, "a standby");
        let error = findings.finish().unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "a standby"));

        let mut findings = Findings::default();
        findings.add(ErrorKind::Unavailable, "a standby");
        findings.add(ErrorKind::Invalid, "run `A;`");
        let error = findings.finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.message(), "2 things are wrong:\n- a standby\n- run `A;`");
    }
}
