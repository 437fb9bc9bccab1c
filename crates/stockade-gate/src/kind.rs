//! Kinds of action as types, so that an admission of one kind opens nothing of another.

use stockade_domain::ActionKind;

mod sealed {
    pub trait Sealed {}
}

/// A kind of action. Implemented by the types of this module and by nothing else.
pub trait Kind: sealed::Sealed + Send + Sync + 'static {
    /// The kind as the domain knows it.
    const KIND: ActionKind;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Kind for $name {
            const KIND: ActionKind = ActionKind::$name;
        }
    )*};
}

kinds! {
    /// A tool of the built-in loop.
    Tool,
    /// A connection or a name look-up.
    Egress,
    /// A call to a model.
    Model,
    /// The use of a secret.
    Credential,
    /// Something leaving the sandbox for good.
    Export,
    /// A question of a harness.
    Permission,
}
