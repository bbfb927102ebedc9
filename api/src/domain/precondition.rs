//! Conditions on the version of what is about to be written (RFC 9110, section 13.1).

use crate::error::{Code, Error, Result};

/// What has to be true of a context for a write to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    #[default]
    None,
    /// It exists, in whatever version: `If-Match: *`.
    Exists,
    /// It is in one of these versions: `If-Match: "3"`.
    Version(Vec<i64>),
    /// It does not exist: `If-None-Match: *`.
    Absent,
}

impl Precondition {
    /// Of a context that exists.
    ///
    /// # Errors
    /// [`Code::PreconditionFailed`], with the version that there is.
    pub fn require(&self, version: i64) -> Result<()> {
        match self {
            Self::None | Self::Exists => Ok(()),
            Self::Version(wanted) if wanted.contains(&version) => Ok(()),
            Self::Version(_) => Err(Error::new(
                Code::PreconditionFailed,
                format!("The context is in version {version} by now; read it again and decide anew."),
            )),
            Self::Absent => Err(Error::new(Code::PreconditionFailed, "The context exists already.")),
        }
    }

    /// Of a context that does not exist.
    ///
    /// # Errors
    /// [`Code::PreconditionFailed`] when it should.
    pub fn require_absent_is_fine(&self) -> Result<()> {
        match self {
            Self::None | Self::Absent => Ok(()),
            Self::Exists | Self::Version(_) => {
                Err(Error::new(Code::PreconditionFailed, "There is no such context to be changed."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_true_of_what_it_says() {
        assert!(Precondition::None.require(3).is_ok() && Precondition::Exists.require(3).is_ok());
        assert!(Precondition::Version(vec![2, 3]).require(3).is_ok());
        assert_eq!(Precondition::Version(vec![2]).require(3).unwrap_err().code, Code::PreconditionFailed);
        assert_eq!(Precondition::Version(vec![]).require(3).unwrap_err().code, Code::PreconditionFailed);
        assert!(Precondition::Absent.require(3).is_err());
        assert!(Precondition::Absent.require_absent_is_fine().is_ok());
        assert!(Precondition::Exists.require_absent_is_fine().is_err());
    }
}
