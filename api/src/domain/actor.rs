//! Who is calling, what of the stored they may reach, and whom the audit log names.

use std::sync::Arc;

use uuid::Uuid;

use super::{DEFAULT_TENANT, Scope, TenantId, TraceLink, UserId};
use crate::error::{Code, Error, Result};

/// Whose rows may be reached: those of one tenant, or of one user of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    pub tenant: TenantId,
    /// None reaches every user of the tenant.
    pub user: Option<UserId>,
}

impl Access {
    /// Every user of `tenant`.
    pub fn whole(tenant: TenantId) -> Self {
        Self { tenant, user: None }
    }

    /// # Errors
    /// [`Code::UserNotAllowed`] when the rows of `user` are beyond reach.
    pub fn require_user(self, user: UserId) -> Result<()> {
        match self.user {
            Some(own) if own != user => Err(Error::new(
                Code::UserNotAllowed,
                "This API key is bound to one user, and the request names another.",
            )),
            _ => Ok(()),
        }
    }

    /// The user to confine a request to: the one that it names, or the only one that may be reached.
    ///
    /// # Errors
    /// [`Code::UserNotAllowed`] when it names one beyond reach.
    pub fn confine(self, named: Option<UserId>) -> Result<Option<UserId>> {
        named.map_or(Ok(()), |user| self.require_user(user))?;
        Ok(named.or(self.user))
    }
}

/// Who writes.
#[derive(Clone, Debug)]
pub struct Actor {
    pub access: Access,
    /// None for an operator's command and for the service itself.
    pub api_key: Option<Uuid>,
    /// As in the answer's `X-Request-ID`.
    pub request_id: Option<Arc<str>>,
    /// The span in which it is written, if that is recorded.
    pub trace: Option<TraceLink>,
}

impl Actor {
    /// The service itself, or the one who operates it.
    pub fn operator(tenant: TenantId) -> Self {
        Self { access: Access::whole(tenant), api_key: None, request_id: None, trace: None }
    }

    pub fn tenant(&self) -> TenantId {
        self.access.tenant
    }
}

/// A key that was verified, and what it is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub access: Access,
    pub api_key: Uuid,
    pub scopes: Vec<Scope>,
}

impl Principal {
    /// # Errors
    /// [`Code::MissingScope`] when the key does not have `scope`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Error::new(
                Code::MissingScope,
                format!("This API key lacks the scope `{}`, which the route needs.", scope.as_str()),
            ))
        }
    }

    /// Admins of the default tenant operate the whole service: they make tenants, and keys for them.
    ///
    /// # Errors
    /// [`Code::NotOperator`] for everyone else.
    pub fn require_operator(&self) -> Result<()> {
        if self.is_operator() {
            Ok(())
        } else {
            Err(Error::new(
                Code::NotOperator,
                "Only a key with the scope `admin` of the tenant `default` may do this.",
            ))
        }
    }

    pub fn is_operator(&self) -> bool {
        self.access == Access::whole(DEFAULT_TENANT) && self.scopes.contains(&Scope::Admin)
    }

    pub fn actor(&self, request_id: Option<Arc<str>>) -> Actor {
        Actor { access: self.access, api_key: Some(self.api_key), request_id, trace: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(tenant: TenantId, user: Option<UserId>, scopes: Vec<Scope>) -> Principal {
        Principal { access: Access { tenant, user }, api_key: Uuid::nil(), scopes }
    }

    #[test]
    fn a_key_needs_the_very_scope() {
        let principal = principal(DEFAULT_TENANT, None, vec![Scope::Admin]);
        assert!(principal.require(Scope::Admin).is_ok());
        assert_eq!(principal.require(Scope::Read).unwrap_err().code, Code::MissingScope);
    }

    #[test]
    fn only_admins_of_the_default_tenant_operate() {
        let other = TenantId(Uuid::from_u128(7));
        assert!(principal(DEFAULT_TENANT, None, Scope::all()).is_operator());
        assert!(!principal(DEFAULT_TENANT, None, vec![Scope::Read, Scope::Write]).is_operator());
        assert!(!principal(other, None, Scope::all()).is_operator());
        assert!(!principal(DEFAULT_TENANT, Some(UserId(Uuid::nil())), Scope::all()).is_operator());
    }

    #[test]
    fn a_bound_key_is_confined_to_its_user() {
        let (own, other) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let bound = Access { tenant: DEFAULT_TENANT, user: Some(own) };
        assert_eq!(bound.confine(None).unwrap(), Some(own));
        assert_eq!(bound.confine(Some(own)).unwrap(), Some(own));
        assert_eq!(bound.confine(Some(other)).unwrap_err().code, Code::UserNotAllowed);
        assert_eq!(Access::whole(DEFAULT_TENANT).confine(Some(other)).unwrap(), Some(other));
        assert_eq!(Access::whole(DEFAULT_TENANT).confine(None).unwrap(), None);
    }
}
