//! The few functions of Node-API that are needed, declared here, and a safe face for them.
//!
//! Node exports them from its own executable, with the same names and signatures in every version (N-API 3 and later). All of them
//! may be called on the thread of the environment only, which is where Node calls us.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

#[repr(C)]
pub(crate) struct EnvOpaque([u8; 0]);
#[repr(C)]
pub(crate) struct ValueOpaque([u8; 0]);
#[repr(C)]
pub(crate) struct InfoOpaque([u8; 0]);

/// `napi_env`.
pub(crate) type RawEnv = *mut EnvOpaque;
/// `napi_value`.
pub(crate) type RawValue = *mut ValueOpaque;
/// `napi_callback_info`.
pub(crate) type RawInfo = *mut InfoOpaque;
type RawCallback = unsafe extern "C" fn(RawEnv, RawInfo) -> RawValue;

unsafe extern "C" {
    fn napi_create_function(
        env: RawEnv,
        name: *const c_char,
        length: usize,
        callback: RawCallback,
        data: *mut c_void,
        result: *mut RawValue,
    ) -> i32;
    fn napi_set_named_property(
        env: RawEnv,
        object: RawValue,
        name: *const c_char,
        value: RawValue,
    ) -> i32;
    fn napi_get_cb_info(
        env: RawEnv,
        info: RawInfo,
        count: *mut usize,
        arguments: *mut RawValue,
        this: *mut RawValue,
        data: *mut *mut c_void,
    ) -> i32;
    fn napi_get_value_double(env: RawEnv, value: RawValue, result: *mut f64) -> i32;
    fn napi_create_double(env: RawEnv, value: f64, result: *mut RawValue) -> i32;
    fn napi_create_string_utf8(
        env: RawEnv,
        text: *const c_char,
        length: usize,
        result: *mut RawValue,
    ) -> i32;
    fn napi_get_buffer_info(
        env: RawEnv,
        value: RawValue,
        data: *mut *mut c_void,
        length: *mut usize,
    ) -> i32;
    fn napi_create_buffer_copy(
        env: RawEnv,
        length: usize,
        data: *const c_void,
        copy: *mut *mut c_void,
        result: *mut RawValue,
    ) -> i32;
    fn napi_add_env_cleanup_hook(
        env: RawEnv,
        hook: unsafe extern "C" fn(*mut c_void),
        argument: *mut c_void,
    ) -> i32;
}

/// `napi_ok`.
const OK: i32 = 0;

/// The most arguments that a function of ours has.
const ARGUMENTS: usize = 5;

/// A call from JavaScript, for as long as it lasts.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    env: RawEnv,
    arguments: [RawValue; ARGUMENTS],
}

/// What a function answers JavaScript. `None` is `undefined`.
pub(crate) type Answer = Option<RawValue>;

impl Call {
    /// # Safety
    /// `env` and `info` are those that Node has just called a callback with.
    pub(crate) unsafe fn new(env: RawEnv, info: RawInfo) -> Call {
        let mut arguments = [ptr::null_mut(); ARGUMENTS];
        let mut count = ARGUMENTS;
        // SAFETY: the caller's promise; `count` says how much room there is, and what is not given is filled
        // with `undefined`.
        let status = unsafe {
            napi_get_cb_info(
                env,
                info,
                &mut count,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        debug_assert_eq!(status, OK);
        Call { env, arguments }
    }

    /// An argument that is a number, or else 0.
    pub(crate) fn number(self, index: usize) -> f64 {
        let mut number = 0.0;
        // SAFETY: the environment is in a call of ours; a value that is no number is answered by an error.
        let status = unsafe { napi_get_value_double(self.env, self.arguments[index], &mut number) };
        if status == OK { number } else { 0.0 }
    }

    /// Calls `then` with the bytes of an argument that is a Buffer.
    ///
    /// `then` must not call JavaScript, which could free them.
    pub(crate) fn with_bytes<T>(self, index: usize, then: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (mut data, mut length) = (ptr::null_mut(), 0);
        // SAFETY: as above.
        let status = unsafe {
            napi_get_buffer_info(self.env, self.arguments[index], &mut data, &mut length)
        };
        if status != OK {
            return None;
        }
        let bytes: &[u8] = match length {
            0 => &[],
            // SAFETY: Node says that so many bytes are there; they stay for the length of the call that has the
            // Buffer as its argument, and no JavaScript runs that could write to them.
            _ => unsafe { std::slice::from_raw_parts(data.cast(), length) },
        };
        Some(then(bytes))
    }

    /// A number for JavaScript.
    pub(crate) fn answer_number(self, number: f64) -> Answer {
        let mut value = ptr::null_mut();
        // SAFETY: the environment is in a call of ours.
        let status = unsafe { napi_create_double(self.env, number, &mut value) };
        (status == OK).then_some(value)
    }

    /// A string for JavaScript.
    pub(crate) fn answer_text(self, text: &str) -> Answer {
        let mut value = ptr::null_mut();
        let (start, length) = (text.as_ptr().cast(), text.len());
        // SAFETY: the environment is in a call of ours, and copies the text.
        let status = unsafe { napi_create_string_utf8(self.env, start, length, &mut value) };
        (status == OK).then_some(value)
    }

    /// A Buffer for JavaScript with a copy of `bytes`.
    pub(crate) fn answer_bytes(self, bytes: &[u8]) -> Answer {
        let mut value = ptr::null_mut();
        let (start, length) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: the environment is in a call of ours, and copies the bytes.
        let status = unsafe {
            napi_create_buffer_copy(self.env, length, start, ptr::null_mut(), &mut value)
        };
        (status == OK).then_some(value)
    }
}

/// Gives the object `exports` a function.
///
/// # Safety
/// `env` and `exports` are those that Node has just called the module's registration with.
pub(crate) unsafe fn export(env: RawEnv, exports: RawValue, name: &CStr, function: RawCallback) {
    let mut value = ptr::null_mut();
    // SAFETY: the caller's promise; the name ends in a zero, which usize::MAX (NAPI_AUTO_LENGTH) looks for.
    unsafe {
        let status = napi_create_function(
            env,
            name.as_ptr(),
            usize::MAX,
            function,
            ptr::null_mut(),
            &mut value,
        );
        if status == OK {
            napi_set_named_property(env, exports, name.as_ptr(), value);
        }
    }
}

/// Has `hook` called before the environment, and with it the isolate, is taken down.
///
/// # Safety
/// As for [`export`].
pub(crate) unsafe fn before_end(env: RawEnv, hook: unsafe extern "C" fn(*mut c_void)) {
    // SAFETY: the caller's promise.
    unsafe { napi_add_env_cleanup_hook(env, hook, ptr::null_mut()) };
}
