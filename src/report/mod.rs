//! Reads the lake and reports what a run would do, what the tables hold, whether they are sound, and the images of each
//! level.

mod contact_sheet;
pub(crate) mod forecast;
mod levels;
mod recompute;
pub(crate) mod repair;
pub(crate) mod shares;
pub(crate) mod status;
pub(crate) mod verify;
mod warnings;

pub(crate) use contact_sheet::{has_contact_sheet, write_contact_sheet};
pub(crate) use levels::{Level, TextTable, levels, tables};
pub(crate) use warnings::{census, nothing_hard, unread, warnings};
