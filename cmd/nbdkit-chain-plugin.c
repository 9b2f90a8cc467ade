/* SPDX-License-Identifier: MIT */
/*
 * nbdkit-chain-plugin: a chain of images, served to a guest over NBD by nbdkit.
 *
 * An entry point like a main: it takes the parameters, hands each request to lib/holder and
 * turns errors into what NBD knows. When nbdkit calls what (measured on 1.32):
 *
 *	config, config_complete	the parameters; the working folder is the user's
 *	get_ready		check, open, lock: an error comes before the socket does
 *	after_fork		threads and the page; the working folder is /
 *	open, requests, close	from any number of threads at once
 *	cleanup			nbdkit's clients have gone; the last commit
 *	unload			also where cleanup was not called
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "base/escape.h"
#include "base/fail.h"
#include "holder/holder.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* Written before the fork; the lock is for what clients that come at once would do twice. */
static struct holder_options options;
static char *description;
static struct holder *holder;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static bool said_no_page; /* before the fork */
static bool writable; /* holder_make_writable is done; open_lock */

/* What a client's handle points to: whether it came to read only. */
static const bool reads_only = true, may_write;

/* --- errors ----------------------------------------------------------------------- */

/* err of the holder, negative, as one of those that nbdkit can say in NBD. */
static int nbd_errno(int err)
{
	switch (-err) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return ENOSPC;
	case EROFS:
	case EPERM:
	case EACCES:
		return EROFS;
	case ENOMEM:
	case EINVAL:
	case EOVERFLOW:
	case ESHUTDOWN:
		return -err;
	default:
		return EIO;
	}
}

/* The result of a call of the holder as nbdkit wants it, the sentence said once. */
static int answer(int err)
{
	if (err >= 0)
		return 0;

	CLEANUP_FREE char *sentence = escape_text(fail_sentence());

	nbdkit_error("%s", sentence ? sentence : strerror(-err));
	nbdkit_set_error(nbd_errno(err));
	return -1;
}

/* --- the parameters --------------------------------------------------------------- */

static int config_file(const char *value)
{
	if (options.path) {
		nbdkit_error("file is given twice; a server has one image");
		return -1;
	}
	options.path = nbdkit_absolute_path(value);
	return options.path ? 0 : -1;
}

static int config_readonly(const char *value)
{
	int yes = nbdkit_parse_bool(value);

	options.readonly = yes > 0;
	return yes < 0 ? -1 : 0;
}

static int config_cache_size(const char *value)
{
	int64_t bytes = nbdkit_parse_size(value);

	if (bytes < 0)
		return -1;
	if (bytes < 1 << 20) {
		nbdkit_error("cache-size=%s: at least 1M, please", value);
		return -1;
	}
	options.cache_bytes = (size_t)bytes;
	return 0;
}

static int chain_config(const char *key, const char *value)
{
	if (strcmp(key, "file") == 0)
		return config_file(value);
	if (strcmp(key, "readonly") == 0)
		return config_readonly(value);
	if (strcmp(key, "cache-size") == 0)
		return config_cache_size(value);
	nbdkit_error("%s: there is no such parameter; they are file, readonly and "
		     "cache-size",
		     key);
	return -1;
}

static int chain_config_complete(void)
{
	CLEANUP_FREE char *name = NULL;

	if (!options.path) {
		nbdkit_error("which image? Give file=IMAGE");
		return -1;
	}
	name = escape_text(options.path);
	if (!name ||
	    asprintf(&description, "chain of qcow2 images, served from %s", name) < 0) {
		description = NULL;
		nbdkit_error("out of memory");
		return -1;
	}
	return 0;
}

#define CHAIN_CONFIG_HELP                                                               \
	"[file=]<IMAGE>       (required) The active image, qcow2; its chain follows.\n" \
	"readonly=true                   Lock as a reader; nothing is ever written.\n"  \
	"cache-size=<SIZE>               Memory for metadata (default 64M)."

static void chain_dump_plugin(void)
{
	puts("chain_version=" CHAIN_VERSION);
	puts("chain_active_formats=qcow2");
	puts("chain_layer_formats=qcow2 raw");
	puts("chain_live_merge=yes");
}

/* --- from the start to the end ---------------------------------------------------- */

/* A chain may be longer than the usual 1024 open files. */
static void raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Said before the fork: of a daemon nobody reads what it says afterwards. */
static void look_for_folder(void)
{
	CLEANUP_FREE char *sentence = NULL;

	if (holder_check_folder() == 0)
		return;
	sentence = escape_text(fail_sentence());
	fail_clear();
	nbdkit_error("%s; the guest is served all the same",
		     sentence ? sentence : "no merge can reach us");
	said_no_page = true;
}

static int chain_get_ready(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	raise_files();
	/* a write past ulimit -f is an error like any other */
	sigaction(SIGXFSZ, &ignore, NULL);
	look_for_folder();
	return answer(holder_open(&holder, &options));
}

static int chain_after_fork(void)
{
	int err = holder_start(holder);

	if (!err && *fail_sentence() && !said_no_page) {
		CLEANUP_FREE char *sentence = escape_text(fail_sentence());

		nbdkit_error("%s; the guest is served all the same",
			     sentence ? sentence : "there is no shared page");
	}
	return answer(err);
}

/*
 * A filter may have threads of its own (readahead has), which nbdkit does not wait for when
 * it is told to end: they may still call.
 */
static void chain_cleanup(void)
{
	if (holder)
		answer(holder_end(holder));
}

static void chain_unload(void)
{
	answer(holder_close(holder));
	free((char *)options.path);
	free(description);
}

/* --- clients ---------------------------------------------------------------------- */

/*
 * `nbdkit -r` is not known in get_ready, and must not change the image: so what a crash left
 * is mended when the first client comes that may write. An error refuses that client only.
 */
static int make_writable(void)
{
	LOCK_SCOPE(&open_lock);
	int err = writable ? 0 : holder_make_writable(holder);

	writable = err >= 0;
	return answer(err);
}

static void *chain_open(int readonly)
{
	bool reader = readonly || holder_is_readonly(holder);

	if (!reader && make_writable() < 0)
		return NULL;
	holder_connections(holder, 1);
	return (void *)(reader ? &reads_only : &may_write);
}

static void chain_close(void *handle)
{
	holder_connections(holder, -1);
}

static const char *chain_export_description(void *handle)
{
	return description;
}

static int64_t chain_get_size(void *handle)
{
	return (int64_t)holder_size(holder);
}

static int chain_can_write(void *handle)
{
	const bool *reader = handle;

	return !*reader;
}

static int chain_yes(void *handle)
{
	return 1;
}

static int chain_no(void *handle)
{
	return 0;
}

static int chain_can_fua(void *handle)
{
	return NBDKIT_FUA_NATIVE;
}

static int chain_can_cache(void *handle)
{
	return NBDKIT_CACHE_NATIVE;
}

/* Any alignment will do; less than a page is what a guest would not ask for anyway. */
static int chain_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
			    uint32_t *maximum)
{
	*minimum = 1;
	*preferred = 4096;
	*maximum = 0xffffffff;
	return 0;
}

/* --- requests --------------------------------------------------------------------- */

static int chain_pread(void *handle, void *buf, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	return answer(holder_read(holder, buf, count, offset));
}

static int chain_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			uint32_t flags)
{
	return answer(holder_write(holder, buf, count, offset, flags & NBDKIT_FLAG_FUA));
}

static unsigned holder_flags(uint32_t flags)
{
	return (flags & NBDKIT_FLAG_FUA ? HOLDER_FUA : 0) |
	       (flags & NBDKIT_FLAG_FAST_ZERO ? HOLDER_FAST : 0);
}

/*
 * Without NBDKIT_FLAG_MAY_TRIM the range should keep its space. A cluster that an internal
 * snapshot shares needs space at its next write whatever we do here, so nobody could promise
 * that; as in QEMU the range reads zero, no more.
 */
static int chain_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	int err = holder_zero(holder, count, offset, holder_flags(flags));

	/* what a client that wants it fast expects to hear, and no fault */
	if (err == -EOPNOTSUPP && (flags & NBDKIT_FLAG_FAST_ZERO)) {
		nbdkit_set_error(EOPNOTSUPP);
		return -1;
	}
	return answer(err);
}

static int chain_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return answer(holder_trim(holder, count, offset, holder_flags(flags)));
}

static int chain_flush(void *handle, uint32_t flags)
{
	return answer(holder_flush(holder));
}

static int chain_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return answer(holder_cache(holder, count, offset));
}

struct extents {
	struct nbdkit_extents *out;
	bool one; /* the client wants the first one only */
	unsigned count;
	uint32_t type; /* of the first */
};

/* nbdkit joins neighbours of a kind, so the first may come in pieces. */
static int add_extent(void *opaque, uint64_t offset, uint64_t length, bool hole,
		      bool zero)
{
	struct extents *e = opaque;
	uint32_t type = (hole ? NBDKIT_EXTENT_HOLE : 0) | (zero ? NBDKIT_EXTENT_ZERO : 0);

	if (!e->count++)
		e->type = type;
	else if (e->one && type != e->type)
		return 1;
	if (nbdkit_add_extent(e->out, offset, length, type) == 0)
		return 0;
	return fail(errno ? errno : EIO, "cannot tell of what lies at %" PRIu64, offset);
}

static int chain_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			 struct nbdkit_extents *extents)
{
	struct extents e = {.out = extents, .one = flags & NBDKIT_FLAG_REQ_ONE};

	return answer(holder_extents(holder, count, offset, add_extent, &e));
}

static struct nbdkit_plugin plugin = {
	.name = "chain",
	.longname = "chain-tools",
	.version = CHAIN_VERSION,
	.description = "serve a chain of qcow2 images that can be merged while in use",
	.unload = chain_unload,
	.config = chain_config,
	.config_complete = chain_config_complete,
	.config_help = CHAIN_CONFIG_HELP,
	.magic_config_key = "file",
	.dump_plugin = chain_dump_plugin,
	.get_ready = chain_get_ready,
	.after_fork = chain_after_fork,
	.cleanup = chain_cleanup,
	.open = chain_open,
	.close = chain_close,
	.export_description = chain_export_description,
	.get_size = chain_get_size,
	.block_size = chain_block_size,
	.can_write = chain_can_write,
	.can_flush = chain_yes,
	.is_rotational = chain_no,
	.can_trim = chain_yes,
	.can_zero = chain_yes,
	.can_fast_zero = chain_yes,
	.can_fua = chain_can_fua,
	.can_multi_conn = chain_yes,
	.can_extents = chain_yes,
	.can_cache = chain_can_cache,
	.pread = chain_pread,
	.pwrite = chain_pwrite,
	.zero = chain_zero,
	.trim = chain_trim,
	.flush = chain_flush,
	.extents = chain_extents,
	.cache = chain_cache,
	/* without this nbdkit would take errno of whatever came last */
	.errno_is_preserved = 0,
};

NBDKIT_REGISTER_PLUGIN(plugin)
