//! What the installation is and whether it is well.

use serde::{Deserialize, Serialize};

/// `GET /`: who answers, and as whom it knows the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `stockade`.
    pub name: String,
    /// The version that runs.
    pub version: String,
    /// Whom the token stands for.
    pub token: String,
    /// The agent used when a request names none.
    pub default_agent: String,
    /// The environment used when a request names none.
    pub default_environment: String,
    /// The model used when neither request nor agent names one.
    pub default_model: Option<String>,
    /// The model provider; `null` means no run can start.
    pub provider: Option<String>,
    /// The sandbox backends, the default first.
    pub backends: Vec<String>,
}

/// `GET /healthz` and `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
}
