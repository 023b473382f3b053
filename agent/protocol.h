/*
 * The wire protocol between Provium and the guest agent, shared by both sides.
 *
 * A frame is a 4-byte big-endian length and a msgpack array [type, channel, id, body]. Channel 0
 * is the mux, 1 the main executor, 2 and up are workers. `id` is chosen by the host, unique on its
 * channel while the operation or one of its streams lives; replies come in any order.
 *
 *   request  host -> agent   [op, {params}]
 *   reply    agent -> host   {results}            ends the operation (streams may go on)
 *   error    agent -> host   {errno, message} | {kind, message}    ends the operation and its streams
 *   event    either way      [stream, bytes]      a piece of a stream (at most WIRE_PIECE bytes)
 *                            [stream, nil]        its end
 *   cancel   host -> agent   nil                  stop the operation and its streams; what it started
 *                                                 (a process group) is killed. Never answered except
 *                                                 by an error of kind "cancelled" if it still ran
 *   credit   either way      [stream, n]          n more bytes of that stream may be sent
 *
 * Every stream starts with WIRE_WINDOW bytes of credit; its sender stops at zero. Stream 0 is the
 * only stream, or stdin; 1 is stdout, 2 is stderr.
 *
 * Sync: after (re)connecting the host sends WIRE_SYNC_MAGIC (16 bytes, begins with FF FF FF FF, no
 * valid length) and 16 random bytes, then drops input until the agent has sent those 32 bytes back. The
 * agent drops everything it had queued, cancels what still ran for the former connection (except
 * spawned processes, open files and workers) and echoes. A read that begins with the magic
 * is a sync even when half a frame was expected.
 *
 * Requests, by channel. `?` marks an optional parameter. Binary data is msgpack bin, text is str.
 * Times are nanoseconds. Guest paths are bytes (str or bin accepted).
 *
 * channel 0 (mux)
 *   hello        {protocol_version, nonce: bin}
 *                -> {protocol_version, agent_version, kernel, arch, features: [str], boot_id, nonce}
 *                A version that differs is answered by an error naming both.
 *   reseed       {entropy: bin} -> {}
 *   shutdown     {how: "poweroff" | "reboot" | "halt"} -> {}   (answered first; then sync and reboot(2))
 *   worker_spawn {} -> {channel, pid}
 *   worker_join  {channel} -> {status}          when it has ended: 0.., 128+signal
 *   worker_signal {channel, signal?} -> {}      SIGKILL when absent; fine when it has ended already
 *
 * channels 1.. (executors)
 *   exec      {argv: [str], env?: {}, env_clear?: bool, cwd?, stdin?: bool, timeout?: ns, tty?: bool,
 *             user?: "name" | "uid[:gid]"}
 *             events: [0, bin] from the host when stdin is true, ended by [0, nil]; [1, bin], [2, bin]
 *             output, each ended by nil before the reply.
 *             -> {status: "exited" | "signalled" | "timed_out", code, signal, duration}
 *             code: -1 signalled, -2 timed out; signal: 0 exited
 *             A program that cannot be executed is an error with its errno.
 *   spawn     like exec without timeout and stdin -> {handle, pid}   stdin is a pipe; events
 *             [1|2, bin|nil] go on under this id after the reply until both streams have ended
 *   attach    {handle} -> {}           the output of a spawned process from now on, after a sync has ended the
 *             spawn's: events as with spawn. EBUSY while another request has it
 *   wait      {handle} -> {status, code, signal, duration}           any number of times
 *   signal    {handle, signal, group?: bool} -> {}
 *   stdin     {handle, data: bin, eof?: bool} -> {written}           when all of it is written
 *   status    {handle} -> {running: bool, status?, code?, signal?}
 *   release   {handle} -> {}                                         forget a process (killed if it runs)
 *
 *   open      {path, read?, write?, create?, truncate?, append?, exclusive?, nonblock?, perm?}
 *             -> {handle, fd}
 *   read      {handle, n} -> {data}             as much as there is, at most 16 MiB, "" at EOF; pread alike
 *   write     {handle, data} -> {written}       all of it
 *   pread     {handle, off, n} -> {data}        pwrite {handle, off, data} -> {written}
 *   seek      {handle, off, whence: "set"|"cur"|"end"} -> {off}
 *   truncate  {handle, size} -> {}              sync {handle} -> {}       close {handle} -> {}
 *   get_file  {path | handle, max?} events [0, bin].. [0, nil] -> {size, mode}
 *             longer than max: error EFBIG
 *   put_file  {path, mode?, atomic?, append?} events from the host [0, bin].. [0, nil] -> {size}
 *   stat      {path, follow} -> {size, mtime, mtime_ns, perm, uid, gid, nlink, ino, entry_type}
 *             mtime is in seconds, mtime_ns the same instant in nanoseconds
 *             entry_type: file directory symlink fifo socket block char
 *   listdir   {path} -> {entries: [[name, entry_type]]}      unsorted; "." and ".." left out
 *   mkdir     {path, parents?, perm?} -> {}     unlink {path, recursive?} -> {}
 *   rename    {from, to} -> {}                  chmod  {path, mode} -> {}
 *
 *   syscall   {nr, args: [int]{0..6}, bufs?: [bin | len], ptrs?: [slot], nested?: [[parent, child, offset]],
 *             align?, async?: bool}
 *             ptrs[i] is the zero-based argument slot that receives bufs[i]'s address, -1 for none; nested
 *             indices are zero-based
 *             -> {ret, errno, bufs: [bin]}      async: on a thread of its own; timeout?: ns for async
 *   ioctl     {fd, cmd, data?: bin | int, bufs?, ptr_offsets?: [offset]} -> {ret, errno, data, bufs}
 *   read_mem  {addr, n} -> {data} | error       write_mem {addr, data} -> {} | error
 *   clock_get {} -> {ns}        clock_set {ns} -> {}        sleep {ns} -> {}     (guest CLOCK_MONOTONIC)
 *   net_configure {mac, name?, addrs: [str "a.b.c.d/n" or v6], up: bool, running?: bool} -> {name}
 *             waits for a card that is not there yet, and with running until it is connected
 *   net_names {hosts: str, dns: str, routes?: [["a.b.c.d/n", "gateway"]]} -> {}
 *             replaces what an earlier one set: our blocks in /etc/hosts and resolv.conf, our routes
 *   load_module {path, params?} -> {}
 *   tail      {path | handle | fd, start?: "end" | "start" | offset, follow?: "name"} -> {}
 *             then events [0, bin].. [0, nil]; a negative offset counts from the end
 *   unsubscribe {id} -> {}                      ends the events of an earlier tail or spawn
 *   batch     {ops: [[op, {params}]]} -> {results: [[true, {}] | [false, {error}]]}
 *             in order, no short-circuit; not spawn, tail, batch
 *             get_file and put_file inside a batch carry their data in `data`, exec in `stdin` (bin),
 *             `stdout` and `stderr`, at most WIRE_BATCH_MAX each
 */
#ifndef PROVIUM_PROTOCOL_H
#define PROVIUM_PROTOCOL_H

#define PROTOCOL_VERSION 1

#define AGENT_VSOCK_PORT 1234
#define AGENT_SERIAL_PORT "org.provium.agent.0"

#define WIRE_FRAME_MAX (64u << 20)	/* bytes of one frame's body */
#define WIRE_DEPTH_MAX 32		/* nesting of one frame */
#define WIRE_OBJECTS_MAX (4u << 20)	/* msgpack objects in one frame: each takes 24 bytes, decoded */
#define WIRE_PIECE (64u << 10)		/* bytes in one event */
#define WIRE_WINDOW (1u << 20)		/* credit a stream starts with */
#define WIRE_BATCH_MAX (16u << 20)

#define WIRE_SYNC_MAGIC "\xff\xff\xff\xff" "PROVIUM-SYNC"
#define WIRE_SYNC_MAGIC_LEN 16
#define WIRE_SYNC_LEN 32

/* Bytes of a stream's piece that holds nothing else up for long; its frame fits into 16 KiB. */
#define WIRE_LIGHT 16000
#define WIRE_LIGHTER (WIRE_LIGHT / 2)	/* the same while others wait to be served */

enum wire_type {
	WIRE_REQUEST, WIRE_REPLY, WIRE_ERROR, WIRE_EVENT, WIRE_CANCEL, WIRE_CREDIT, WIRE_TYPES
};

enum wire_channel { WIRE_MUX = 0, WIRE_MAIN = 1, WIRE_FIRST_WORKER = 2 };

/* Kinds of errors that are ours and not the guest system's. */
#define WIRE_BAD_REQUEST "bad_request"
#define WIRE_UNSUPPORTED "unsupported"
#define WIRE_UNKNOWN_HANDLE "unknown_handle"
#define WIRE_INTERNAL "internal"
#define WIRE_CANCELLED "cancelled"

#endif
