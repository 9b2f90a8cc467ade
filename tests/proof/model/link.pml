/* SPDX-License-Identifier: MIT */
/*
 * Compare and link, up to FINISH: one guest cluster of two subclusters ("units"), guests
 * that write, zero, trim or read (lib/holder/write.c, discard.c, resolve.c), a worker that
 * links or has filled what it takes for unallocated, or passes it over by mistake, and may
 * be killed before any step (lib/job/live.c, target-held.c), the control thread (session.c,
 * complete.c, finish.c), the commit thread, which may find no space for a word or fail to
 * sync (commit.c).
 *
 * A unit that nobody allocated reads LAYERS while the old chain is below, and BASE when the
 * swallowed images are gone: who sees that has lost data. A host cluster is never used
 * twice here (space.pml), and data is always durable before its word (commit.pml).
 *
 * GUESTS: how many, one request each. ROUNDS: of the merge.
 */
#ifndef GUESTS
#define GUESTS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif

#define U 2
#define HOSTS 5

/* Of a unit, in a word */
#define HOLE 0
#define ZERO 1
#define DATA 2

/* Content; a guest's writes from 3 on */
#define ZEROS 0
#define LAYERS 1
#define BASE 2

#define NONE 255
#define BIT(n) (1 << (n))

typedef word {
	byte unit[U];
	byte host; /* NONE: no cluster */
}

word mem, P, W; /* in memory; for the next commit; of the one under way */
bool has_P, writing;
word cached, disk; /* in the page cache, and as last synced */
byte content[10]; /* 2 * host + unit */
byte next_host;
bool busy;
bool commit_lock, broken;
byte commits; /* commits_flush of FINISH: 1 asked, 2 begun, 3 good, 4 failed */
byte fails = 1;

byte header; /* 0: the old backing file; 1: perhaps; 2: the new one */
bool view, closed; /* holder.view is the new one; swallowed images are closed */
byte epoch = 1, slot[GUESTS];

mtype = { LINK, FILL, FINISH, DONE, BUSY, AGAIN };
mtype request, answer;
byte host_of;
bool killed, dead;

/* To judge by */
byte ids = 3, live[U], done[U], reads[GUESTS], sees[GUESTS];
bool stale_data, lost_write, incomplete, closed_read;

#define NOW(u) (mem.unit[u] == DATA -> content[2 * mem.host + u] : \
		(mem.unit[u] == ZERO -> ZEROS : (view -> BASE : LAYERS)))
#define IS_HOLE(w) (w.unit[0] == HOLE && w.unit[1] == HOLE)

inline copy(to, from)
{
	to.unit[0] = from.unit[0];
	to.unit[1] = from.unit[1];
	to.host = from.host
}

/* active_publish: region and publish locked */
inline publish(from)
{
	copy(mem, from);
	copy(P, from);
	has_P = true
}

/* Guests ---------------------------------------------------------------------------- */

inline begin_change(u, id)
{
	seen[u] = done[u];
	live[u] = live[u] | BIT(id);
	k = 0;
	do
	:: k < GUESTS ->
		if
		:: reads[k] == u -> sees[k] = sees[k] | BIT(id)
		:: else
		fi;
		k++
	:: else -> break
	od;
	k = 0
}

inline end_change(u, id)
{
	live[u] = (live[u] & ~seen[u]) | BIT(id);
	done[u] = (done[u] & ~seen[u]) | BIT(id)
}

/* guest_write of one unit: in place, or first_write */
inline guest_write(u)
{
	atomic {
#ifndef M_WRITE_NO_WAIT
		!busy; /* look: region_wait */
#endif
		id = ids;
		ids++;
		begin_change(u, id);
		copy(was, mem);
		own = was.unit[u] == DATA;
		if
		:: !own -> busy = true
		:: else
		fi
	}
	if
	:: own ->
		d_step { content[2 * was.host + u] = id; end_change(u, id) }
	:: else ->
		if
		:: d_step {
			if
			:: was.host == NONE -> was.host = next_host; next_host++
			:: else
			fi;
			content[2 * was.host + u] = id
		   }
		   d_step {
			was.unit[u] = DATA; /* word_with */
			publish(was);
			busy = false;
			end_change(u, id)
		   }
		:: busy = false /* an error: nothing is published */
		fi
	fi
}

/* zero_v3 of one unit */
inline guest_zero(u)
{
	d_step {
		!busy;
		begin_change(u, ZEROS);
		copy(was, mem);
		was.unit[u] = ZERO;
		publish(was);
		end_change(u, ZEROS)
	}
}

/* ... and of all: the cluster goes */
inline guest_trim()
{
	d_step {
		!busy;
		begin_change(0, ZEROS);
		begin_change(1, ZEROS);
#ifndef M_TRIM_TO_HOLE
		was.unit[0] = ZERO;
		was.unit[1] = ZERO;
#endif
		was.host = NONE;
		publish(was);
		end_change(0, ZEROS);
		end_change(1, ZEROS)
	}
}

inline guest_read(u)
{
	d_step { /* resolve */
		reads[me] = u;
		sees[me] = live[u];
		copy(was, mem)
	}
	d_step {
		if
		:: was.unit[u] == DATA -> id = content[2 * was.host + u]
		:: was.unit[u] == ZERO -> id = ZEROS
		:: was.unit[u] == HOLE && mine -> id = BASE
		:: was.unit[u] == HOLE && !mine ->
			id = LAYERS;
			if
			:: closed -> closed_read = true
			:: else
			fi
		fi;
		if
		:: !(sees[me] & BIT(id)) -> stale_data = true
		:: else
		fi;
		reads[me] = NONE;
		sees[me] = 0
	}
}

proctype guest(byte me)
{
	byte id, k, seen[U];
	bool own, mine;
	word was;

	slot[me] = 1; /* epoch_enter */
	id = epoch;
	slot[me] = id;
	mine = view;
	if
	:: guest_write(0)
	:: guest_write(1)
	:: guest_zero(0)
	:: guest_trim()
	:: guest_read(0)
	:: guest_read(1)
	fi;
	slot[me] = 0;
	d_step {
		id = 0; seen[0] = 0; seen[1] = 0; own = false; mine = false;
		was.unit[0] = 0; was.unit[1] = 0; was.host = 0
	}
}

/* The worker -------------------------------------------------------------------------- */

inline call(op)
{
	atomic { request = op }
	atomic { answer != 0 -> got = answer; answer = 0 }
}

proctype worker()
{
	mtype got;
	byte round;

	{
		do
		:: round < ROUNDS && !broken ->
			round++;
			/* its own look at the tables is a hint: anything may come of it */
			if
			:: d_step { /* LEASE, and the copy */
				next_host < HOSTS ->
				host_of = next_host;
				next_host++;
				content[2 * host_of] = LAYERS;
				content[2 * host_of + 1] = LAYERS
			   }
			   do
			   :: call(LINK);
			      if
			      :: got != BUSY -> break
			      :: else
			      fi
			   od
			:: do
			   :: call(FILL);
			      if
			      :: got != BUSY -> break
			      :: else
			      fi
			   od
			:: skip
			fi;
			call(FINISH);
			if
			:: got == DONE -> break
			:: else
			fi
		:: else -> break
		od
	} unless {
		killed
	}
	dead = true
}

proctype killer()
{
	if
	:: killed = true
	:: skip
	fi
}

/* The commit thread --------------------------------------------------------------------- */

/* commit_once; out is left alone when it is good */
inline commit_once(out)
{
	d_step { /* take */
		if
		:: !writing && has_P -> copy(W, P); has_P = false; writing = true
		:: else
		fi
	}
	if
	:: writing ->
		if
		:: d_step { copy(cached, W) } /* S2 */
		   if
		   :: d_step { copy(disk, cached); writing = false } /* synced */
		   :: d_step { fails > 0 -> fails--; broken = true; out = AGAIN }
		   :: d_step { fails > 0 -> fails--; out = AGAIN } /* no space for another */
		   fi
		:: d_step { fails > 0 -> fails--; out = AGAIN }
		fi
	:: else
	fi
}

/* commit_now, with commits.writing held */
inline commit_now(out)
{
	if
	:: broken -> out = AGAIN
	:: else ->
		late = writing;
		commit_once(out);
		if
		:: late && out != AGAIN -> commit_once(out)
		:: else
		fi
	fi
}

/* The control thread -------------------------------------------------------------------- */

/* link_one, under the region's lock; the guest was first: LOST, nothing happens */
inline link_one()
{
	d_step {
		if
#ifndef M_NO_BUSY
		:: busy -> out = BUSY
#endif
#ifndef M_NO_COMPARE
		:: !(busy) && !IS_HOLE(mem) -> out = DONE
#endif
		:: else ->
#ifdef M_NO_BUSY
			if
			:: !IS_HOLE(mem) -> out = DONE
			:: else ->
#endif
			was.unit[0] = DATA;
			was.unit[1] = DATA;
			was.host = host_of;
			publish(was);
			out = DONE
#ifdef M_NO_BUSY
			fi
#endif
		fi
	}
}

/* guest_fill: what is unallocated, by first_write */
inline fill()
{
	atomic {
		copy(was, mem);
#ifndef M_FILL_NO_BUSY
		out = (busy -> BUSY : DONE);
#else
		out = DONE;
#endif
		todo = out == DONE && (was.unit[0] == HOLE || was.unit[1] == HOLE);
		if
		:: todo -> busy = true
		:: else
		fi
	}
	if
	:: todo ->
		d_step {
			if
			:: was.host == NONE -> was.host = next_host; next_host++
			:: else
			fi;
			if
			:: was.unit[0] == HOLE -> content[2 * was.host] = LAYERS; was.unit[0] = DATA
			:: else
			fi;
			if
			:: was.unit[1] == HOLE -> content[2 * was.host + 1] = LAYERS; was.unit[1] = DATA
			:: else
			fi
		}
		d_step { publish(was); busy = false }
	:: else
	fi
}

/* session_finish */
inline finish()
{
	out = DONE;
	commits = 1; /* commits_flush */
	atomic {
		commits >= 3 ->
		if
		:: commits == 4 -> out = AGAIN
		:: else
		fi;
		commits = 0
	}
#ifdef M_CHECK_MEMORY
#define TABLE mem
#else
#define TABLE cached
#endif
#ifndef M_NO_CHECK
	/* session_complete: from the tables, slice by slice beside the guest */
	if
	:: TABLE.unit[0] == HOLE -> out = AGAIN
	:: else
	fi;
	if
	:: TABLE.unit[1] == HOLE -> out = AGAIN
	:: else
	fi;
#endif
	/* switch_header */
	atomic { !commit_lock -> commit_lock = true }
#ifndef M_NO_SECOND_COMMIT
	if
	:: out == DONE -> commit_now(out)
	:: else
	fi;
#endif
	if
	:: out == DONE ->
		header = 1; /* image_rehead: the sector, then its sync */
		header = 2
	:: else
	fi;
	commit_lock = false;
	/* swap_chain */
	if
	:: out == DONE ->
		view = true;
		d_step { stamp = epoch; epoch++ }
#ifndef M_NO_EPOCH
		k = 0;
		do /* epoch_wait */
		:: k < GUESTS ->
			!slot[k] || slot[k] > stamp;
			k++
		:: else -> break
		od;
#endif
		closed = true
	:: else
	fi
}

proctype control()
{
	mtype op, out;
	byte k, stamp;
	bool todo, late;
	word was;

end:	do
	:: atomic { request != 0 -> op = request; request = 0 }
	   if
	   :: op == LINK -> link_one()
	   :: op == FILL -> fill()
	   :: op == FINISH && !closed -> finish()
	   :: op == FINISH && closed -> out = DONE
	   fi;
	   d_step {
		answer = out; op = 0; out = 0; k = 0; stamp = 0; todo = false;
		was.unit[0] = 0; was.unit[1] = 0; was.host = 0
	   }
	:: dead && answer != 0 -> answer = 0
	od
}

proctype committer()
{
	mtype out;
	bool late;

end:	do
	:: atomic {
		!commit_lock && (commits == 1 || ((has_P || writing) && !broken)) ->
		commit_lock = true;
		commits = (commits == 1 -> 2 : commits)
	   }
	   commit_now(out);
	   d_step {
		commit_lock = false;
		if
#ifndef M_FAILURE_UNSAID
		:: commits == 2 -> commits = (out == AGAIN || broken -> 4 : 3)
#else
		:: commits == 2 && out != AGAIN && !broken -> commits = 3
#endif
		:: else
		fi;
		out = 0;
		late = false
	   }
	od
}

/* No word on the disk shows a unit, and the header may be the new one; or the same in memory */
#define INCOMPLETE ((header && (disk.unit[0] == HOLE || cached.unit[0] == HOLE || \
				disk.unit[1] == HOLE || cached.unit[1] == HOLE)) || \
		    (view && (mem.unit[0] == HOLE || mem.unit[1] == HOLE)))
/* A read that begins now */
#define LOST (!(live[0] & BIT(NOW(0))) || !(live[1] & BIT(NOW(1))))

/*
 * Guests now, and whoever reads the disk after a power cut. It can move only when something
 * is wrong, so that it hides no deadlock.
 */
proctype judge()
{
end:	d_step {
		INCOMPLETE || LOST || stale_data || closed_read ->
		incomplete = INCOMPLETE;
		lost_write = LOST
	}
	assert(!incomplete);
	assert(!lost_write);
	assert(!stale_data);
	assert(!closed_read)
}

init {
	byte i;

	d_step {
		mem.host = NONE;
		P.host = NONE;
		W.host = NONE;
		cached.host = NONE;
		disk.host = NONE;
		live[0] = BIT(LAYERS);
		live[1] = BIT(LAYERS);
		done[0] = BIT(LAYERS);
		done[1] = BIT(LAYERS);
		do
		:: i < GUESTS -> reads[i] = NONE; i++
		:: else -> break
		od;
		i = 0
	}
	atomic {
		do
		:: i < GUESTS -> run guest(i); i++
		:: else -> break
		od;
		run control();
		run worker();
		run killer();
		run committer();
		run judge()
	}
}
