/* SPDX-License-Identifier: MIT */
/*
 * The shared page: what lies where in the file, and who may write it when.
 *
 * There is one for each image that we have open for writing,
 *
 *	/dev/shm/chain-<uid>/<st_dev>-<st_ino>		(hex)
 *
 * made by its OWNER: the process that holds the image (a holder that serves a guest, or
 * an offline worker, which is owner and worker in one). The WORKER does a merge and
 * writes the worker and progress areas. Anybody with the permission to open the file may
 * read all of it, and as a REQUESTER write the control area. Native byte order, no
 * pointers; the layout is pinned below, and any change of it is a new PAGE_VERSION.
 *
 * Who is alive
 *
 *	Decided by OFD write locks on bytes of the file, never by a pid in it: the kernel
 *	drops them with the last close of the description, however the process ends.
 *
 *	byte 0	the owner lives
 *	byte 1	the worker lives; one at a time, so it is also the right to write the
 *		worker and progress areas and the requests in the mailbox
 *	byte 2	a requester is changing the control area and waits to be heard
 *
 *	Nobody takes byte 0 of another's page, be it for a moment, without having byte 1
 *	first: so a worker that has byte 1 and sees byte 0 free knows that its holder is
 *	dead.
 *
 *	Pids are for people and are believed only while the lock is held. After taking a
 *	lock the path is looked at again: does it still name this inode? Otherwise the
 *	lock is one on a page that was replaced meanwhile.
 *
 * How a page begins and ends
 *
 *	The owner makes an unnamed file, allocates all of its space (a full /dev/shm is
 *	then an error here and no SIGBUS later; it is never made shorter), fills it, takes
 *	its locks, and only then gives it its name with linkat. So whoever can see a page
 *	sees a complete one with its locks held. A name that is taken belongs to a living
 *	owner (byte 0 held), or to a dead one: then the newcomer takes byte 1 (waiting for
 *	a worker that is about to notice that its holder died) and byte 0, looks again
 *	that the path still names that inode, and unlinks it. A page is never reused: who
 *	has a dead one open keeps a dead one.
 *
 *	An owner that ends unlinks the name and closes. One that was killed leaves the
 *	file, state and all, with the locks gone: readers show it as dead until the next
 *	owner of the image replaces it, or a listing by the user it belongs to, a day
 *	later, removes it. A page that is deleted under its owner (a logout can clear
 *	/dev/shm) is normal: the owner looks about once a second and publishes a copy. A
 *	worker of a holder that is connected through the deleted one stays there until it
 *	ends; the holder serves it there, holds byte 1 of the copy meanwhile, and carries
 *	worker and progress over to the copy and control back, several times a second. So
 *	there is one mailbox that is served at any time, and one worker.
 *
 * Order of stores
 *
 *	header, owner	by the owner before the name appears; constant afterwards, but for
 *			owner.connections and owner.requests, which a holder stores relaxed.
 *	worker		by the worker who holds byte 1: generation to odd (release), the
 *			fields, generation to the next even number (release). A reader
 *			takes it twice around its reads and tries again when they differ.
 *			An offline worker writes it before the name appears. One that
 *			goes leaves it empty; one that was killed leaves it as it is,
 *			perhaps with an odd generation.
 *	progress	by the worker only. Counters only grow and are stored relaxed,
 *			then state is stored with release; readers load state first
 *			(acquire), so what they see is at least as new as the state. A
 *			stale or mixed set of counters is harmless: it is a display,
 *			nothing is decided by it. sentence is stored before error
 *			(release), and another one after error was stored as 0.
 *	control		by a requester who holds byte 2: fields first, then sequence + 1
 *			(release). The worker loads sequence (acquire), then the fields,
 *			acts on them and stores the sequence it saw in progress.ack
 *			(release): so the requester knows that a living worker took it.
 *			The fields say how things should BE, not what to do, so taking
 *			them twice, or an older sequence with newer fields, does no harm.
 *			A requester stores the field that it changes and no other. The
 *			worker stores pause = 1 when it stands still of itself, and all
 *			fields but sequence when it comes (what was asked of a former
 *			one must not hit it) and when it goes.
 *	mailbox		page/mail.h
 *
 *	Readers and requesters use pread and pwrite, no mapping: the file may belong to
 *	another user, who could shorten it under root's eyes; that must be a short read
 *	and not a SIGBUS. The owner maps its own file, and the worker of a holder maps
 *	that, since it waits on futexes: a SIGBUS there ends a process that who shortens
 *	the file can end anyway (the worker by ending the holder), and holders and merges
 *	may be killed at any time. All stored numbers are aligned, and nothing above needs
 *	a store of more than one number to be atomic.
 *
 * What a crash leaves: nothing here is needed to go on with a merge; the image alone
 * says how far it is.
 */
#ifndef PAGE_LAYOUT_H
#define PAGE_LAYOUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_MAGIC 0x6761706e69616863ull /* "chainpag" on a little-endian machine */
#define PAGE_VERSION 1u
#define PAGE_BYTES 131072u
#define PAGE_PATH 4096 /* with the final NUL; longer ones are cut: for display only */
#define PAGE_SENTENCE 1024

#define PAGE_BYTE_OWNER 0
#define PAGE_BYTE_WORKER 1
#define PAGE_BYTE_CONTROL 2

enum page_owner_kind {
	PAGE_OFFLINE = 1, /* owner and worker are one process */
	PAGE_HOLDER = 2, /* serves a guest; workers come and go */
	/*
	 * Owner and worker are one process, who asks a QEMU to merge: pid and program are
	 * the QEMU's, the locks are the worker's.
	 */
	PAGE_QEMU = 3,
};

struct page_header_area {
	uint64_t magic;
	uint32_t version;
	uint32_t size; /* PAGE_BYTES */
	/*
	 * The protocol spoken in the mailbox area, 0: none (an offline worker has nobody
	 * to talk to). A worker that does not know the number does not begin.
	 */
	uint32_t mailbox_version;
	uint32_t reserved[11];
};

struct page_owner_area {
	uint32_t kind; /* enum page_owner_kind */
	int32_t pid; /* in the owner's pid namespace */
	uint64_t started_ms; /* CLOCK_REALTIME */
	char program[16]; /* as /proc/PID/comm */
	uint32_t connections; /* of clients, now; a holder's only */
	uint32_t reserved0;
	/*
	 * That its guest has made so far; stored several times a second while a merge runs,
	 * for its worker, which steps back while they grow. A holder that does not say stays
	 * at 0.
	 */
	uint64_t requests;
	uint32_t reserved[20];
};

struct page_worker_area {
	uint64_t generation; /* even: the rest is complete */
	int32_t pid;
	uint32_t reserved0;
	uint64_t started_ms; /* CLOCK_REALTIME */
	char program[16];
	char type[16]; /* "stream", "rebase"; "": no merge (nobody, or a snapshot) */
	uint32_t reserved[2];
	char image[PAGE_PATH]; /* absolute */
	char base[PAGE_PATH]; /* absolute; "" for none */
};

struct page_progress_area {
	uint32_t state; /* stored last, loaded first; the numbers of job/merge.h */
	int32_t error; /* a positive errno; 0: none so far */
	uint64_t ack; /* the control.sequence that the worker took last */
	uint64_t updated_ms; /* CLOCK_REALTIME of the last report */
	uint64_t total, done; /* bytes, as all of them */
	uint64_t read, written;
	uint64_t copied, compressed, reflinked, zeroed, skipped, compared;
	uint64_t rate; /* bytes per second, now */
	uint64_t reserved[18];
	char sentence[PAGE_SENTENCE]; /* what error is, for people */
};

struct page_control_area {
	uint64_t sequence; /* stored last */
	uint64_t speed; /* bytes per second, 0: no limit */
	uint32_t pause; /* 1: stand still */
	uint32_t cancel; /* 1: stop and go; never back to 0 while a worker lives */
	int32_t pid; /* of the last requester, for people */
	uint32_t reserved[9];
};

/* Room for requests and answers of worker and holder; see header.mailbox_version. */
#define PAGE_MAILBOX_BYTES 98304u

struct page_layout {
	struct page_header_area header;
	struct page_owner_area owner;
	uint8_t reserved0[3904];
	struct page_worker_area worker;
	uint8_t reserved1[4032];
	struct page_progress_area progress;
	uint8_t reserved2[2816];
	struct page_control_area control;
	uint8_t reserved3[12224];
	uint8_t mailbox[PAGE_MAILBOX_BYTES];
};

static_assert(sizeof(struct page_header_area) == 64, "pinned");
static_assert(sizeof(struct page_owner_area) == 128, "pinned");
static_assert(sizeof(struct page_worker_area) == 64 + 2 * PAGE_PATH, "pinned");
static_assert(sizeof(struct page_progress_area) == 256 + PAGE_SENTENCE, "pinned");
static_assert(sizeof(struct page_control_area) == 64, "pinned");
static_assert(offsetof(struct page_layout, owner) == 64, "pinned");
static_assert(offsetof(struct page_layout, worker) == 4096, "pinned");
static_assert(offsetof(struct page_layout, progress) == 16384, "pinned");
static_assert(offsetof(struct page_layout, control) == 20480, "pinned");
static_assert(offsetof(struct page_layout, mailbox) == 32768, "pinned");
static_assert(sizeof(struct page_layout) == PAGE_BYTES, "pinned");

#endif
