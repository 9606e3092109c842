//! Every core operator has a rule or a written reason.
