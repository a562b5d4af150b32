//! Where a browser goes after it has uploaded a form.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};

use super::CallbackTokens;
use crate::model::IntentId;

/// A page of the application, and the callback that confirms the upload on the way there.
#[derive(Debug, Clone)]
pub struct FormReturn {
    /// URL of the callback, without a trailing slash.
    pub callback_url: String,
    /// URL of the page.
    pub page: String,
}

impl FormReturn {
    /// What the store redirects to after the upload `id`. It carries a callback token that is good until `until`.
    ///
    /// All of it is path: stores add a query of their own, and some (SeaweedFS 4.48) do not keep another.
    pub(super) fn success_action_redirect(
        &self,
        id: IntentId,
        until: DateTime<Utc>,
        tokens: &CallbackTokens,
    ) -> SecretString {
        let token = tokens.issue(id, until);
        let page = URL_SAFE_NO_PAD.encode(&self.page);
        SecretString::from(format!("{}/{id}/{}/{page}", self.callback_url, token.expose_secret()))
    }

    /// The page that the last segment of such a path holds, as it was asked for; `None` when it holds none.
    pub fn page_of(segment: &str) -> Option<String> {
        String::from_utf8(URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
    }
}
