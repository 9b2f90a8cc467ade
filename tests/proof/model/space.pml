/* SPDX-License-Identifier: MIT */
/*
 * Who may use a host cluster, and when again: leases, links, epochs, the limbo and the free
 * list (lib/holder/session.c, write.c, discard.c, epoch.c, space.c, and S1 to S3 of
 * commit.c). Two guest clusters, three host clusters of two sectors; guests that write,
 * trim or read, one request each; a worker that copies both guest clusters, each as a data
 * cluster or as a compressed one (two of those share a host cluster), and may be killed
 * before any step; the control thread that acts for it; the commit thread.
 *
 * A power cut has no part here (commit.pml): "on the disk" is what S2 has written.
 *
 * GUESTS: how many there are. TASKS: guest clusters that the worker merges. BLOBS: only as
 * compressed ones. WRITTEN: guest cluster 0 has a host cluster from before.
 *
 * Guest cluster g reads sector g of its host cluster; a data cluster is written in both.
 * Content: 0 zeros, g * 8 + id else; id 1 is what the layers say, others are a guest's write
 * each.
 */
#ifndef GUESTS
#define GUESTS 2
#endif

#ifndef TASKS
#define TASKS 2
#endif

#define G 2
#define H 3

#define HOLE 0
#define ZERO 1
#define DATA 2 /* + h */
#define BLOB (2 + H) /* + h */
#define HOST(w) ((w) < BLOB -> (w) - DATA : (w) - BLOB)
#define NAMES(w, h) ((w) == DATA + (h) || (w) == BLOB + (h))

#define NONE 255
#define OUT 255 /* limbo: not there */
#define HAND 254 /* limbo: in the hands of space_tend */
#define BIT(n) (1 << (n))

typedef pending { /* struct pending of lib/holder/active.h */
	byte word[G]; /* NONE: no change */
	byte set; /* raises, RAISE_FIRST: a bit each */
	byte add[H]; /* raises of compressed clusters */
	byte freed[H];
}

pending P, W;
bool writing; /* active.writing is there */
bool commit_lock; /* commits.writing */
byte commits; /* commits_flush of the control thread: 1 asked, 2 begun, 0 done */
byte mem[G]; /* words in memory */
bool busy[G];
byte disk[G]; /* words on the disk */
byte ref[H]; /* refcounts on the disk */
byte sector[6]; /* 2 * h + g */

byte now = 1, slot[GUESTS]; /* struct epoch */
byte next; /* alloc.next */
byte freelist; /* space.free */
byte limbo[H]; /* space.limbo: stamps */
byte kept; /* space.kept */
byte leases; /* session.leases */

bool session, alive = true; /* alive: byte 1 of the page is held */
mtype = { LEASE, LINK, LINK_BLOB, LINKED, LOST, BUSY, FULL };
mtype request, answer; /* the mailbox; 0: empty */
byte guest_of, host_of; /* of the request; host of the answer */

/* To judge by */
byte at[GUESTS], worker_at = NONE; /* the host cluster that is being read or written */
byte ids = 2;
byte live[G], done[G], sees[GUESTS];

byte settles = NONE; /* linked, and still called a lease until `settle` */

bool double_use, stale_data, dirty_cluster, leaked;

#define FREE_NOW(h) (freelist & BIT(h))

/* Whoever says that nobody uses h: is it so? */
inline check_unused(h)
{
	if
	:: ref[h] || NAMES(mem[0], h) || NAMES(mem[1], h) || NAMES(disk[0], h) ||
	   NAMES(disk[1], h) || worker_at == h || (leases & BIT(h) && settles != h) || kept & BIT(h) ||
	   at[0] == h || at[GUESTS - 1] == h || at[GUESTS / 2] == h -> double_use = true
	:: else
	fi
}

/* space_take: host clusters never handed out, or one that is free; NONE: no room */
inline take_cluster(out)
{
	if
	:: FREE_NOW(0) -> out = 0
	:: FREE_NOW(1) -> out = 1
	:: FREE_NOW(2) -> out = 2
	:: !freelist && next < H -> out = next; next++
	:: !freelist && next >= H -> out = NONE
	fi;
	if
	:: out != NONE ->
		freelist = freelist & ~BIT(out);
		check_unused(out);
		if
		:: sector[2 * out] || sector[2 * out + 1] -> dirty_cluster = true
		:: else
		fi
	:: else
	fi
}

/* add to space.limbo */
inline add_limbo(h, stamp)
{
	if
	:: limbo[h] != OUT || FREE_NOW(h) -> double_use = true
	:: else -> limbo[h] = stamp
	fi
}

/* active_publish: region lock and publish held */
inline publish(g, to)
{
	if
	:: to >= BLOB -> P.add[to - BLOB]++
	:: to >= DATA && to < BLOB -> P.set = P.set | BIT(to - DATA)
	:: else
	fi;
	if
	:: mem[g] >= DATA && mem[g] != to ->
		P.freed[HOST(mem[g])]++ /* free_old */
	:: else
	fi;
	P.word[g] = to;
	mem[g] = to
}

/* Guests (lib/holder/requests.c) ------------------------------------------------------ */

inline begin_change(g, id)
{
	seen = done[g];
	live[g] = live[g] | BIT(id);
	k = 0;
	do
	:: k < GUESTS ->
		if
		:: reads[k] == g -> sees[k] = sees[k] | BIT(id)
		:: else
		fi;
		k++
	:: else -> break
	od;
	k = 0
}

inline end_change(g, id)
{
	live[g] = (live[g] & ~seen) | BIT(id);
	done[g] = (done[g] & ~seen) | BIT(id)
}

byte reads[GUESTS]; /* the guest cluster that is being read */

/* epoch_enter: the slot is had first, and given the present epoch then */
inline enter()
{
	slot[me] = 1;
	e = now;
	slot[me] = e
}

/* guest_write: the word is looked at under the region's lock, the data written without */
inline guest_write(g)
{
	atomic {
		!busy[g];
		id = ids;
		ids++;
		begin_change(g, id);
		own = mem[g] >= DATA && mem[g] < BLOB;
		if
		:: own -> h = mem[g] - DATA; at[me] = h
		:: else -> busy[g] = true
		fi
	}
#ifdef M_ENTER_LATE
	enter();
#endif
	if
	:: own ->
		d_step {
			sector[2 * h] = g * 8 + id;
			sector[2 * h + 1] = g * 8 + id;
			at[me] = NONE;
			end_change(g, id)
		}
	:: else ->
		atomic {
			take_cluster(h);
			at[me] = h
		}
		if
		:: h == NONE ->
			d_step { busy[g] = false; live[g] = live[g] & ~BIT(id) }
		:: else ->
			d_step {
				sector[2 * h] = g * 8 + id;
				sector[2 * h + 1] = g * 8 + id
			}
			d_step {
				publish(g, DATA + h);
				busy[g] = false;
				at[me] = NONE;
				end_change(g, id)
			}
		fi
	fi
}

/* zero_v3: region locked. The layers have data there. */
inline guest_trim(g)
{
	d_step {
		!busy[g];
		begin_change(g, 0);
		if
		:: mem[g] != ZERO -> publish(g, ZERO)
		:: else
		fi;
		end_change(g, 0)
	}
}

/* resolve_read: the word under the region's lock, the data without */
inline guest_read(g)
{
	d_step {
		reads[me] = g;
		sees[me] = live[g];
		if
		:: mem[g] >= DATA -> h = HOST(mem[g]); at[me] = h
		:: mem[g] == ZERO -> id = 0
		:: mem[g] == HOLE -> id = g * 8 + 1
		fi
	}
#ifdef M_ENTER_LATE
	enter();
#endif
	d_step {
		if
		:: at[me] != NONE -> id = sector[2 * h + g]
		:: else
		fi;
		if
		:: id == 0 && !(sees[me] & 1) -> stale_data = true
		:: id != 0 && (id / 8 != g || !(sees[me] & BIT(id % 8))) ->
			stale_data = true
		:: else
		fi;
		at[me] = NONE;
		reads[me] = NONE;
		sees[me] = 0
	}
}

proctype guest(byte me)
{
	byte h, id, seen, k, e;
	bool own;

#ifndef M_ENTER_LATE
	enter();
#endif
	if
	:: guest_write(0)
	:: guest_write(1)
	:: guest_trim(0)
	:: guest_trim(1)
	:: guest_read(0)
	:: guest_read(1)
	fi;
	d_step { h = 0; id = 0; seen = 0; e = 0; own = false; slot[me] = 0 } /* epoch_leave */
}

/* The worker (lib/job/target-held.c) ---------------------------------------------------- */

inline call(op, g, h)
{
	atomic { request = op; guest_of = g; host_of = h }
	atomic { answer != 0 -> got = answer; answer = 0 }
}

/* held_lease, copy, held_commit; what is BUSY is sent again */
inline merge_data(g)
{
	call(LEASE, 0, 0);
	if
	:: got == FULL
	:: else ->
		atomic { h = host_of; worker_at = h }
		atomic {
			sector[2 * h] = g * 8 + 1;
			sector[2 * h + 1] = g * 8 + 1
		}
		worker_at = NONE;
		do
		:: call(LINK, g, h);
		   if
		   :: got != BUSY -> break
		   :: else
		   fi
		od
	fi
}

/* held_lease_blob: the next one goes where the last one was, if there is room */
inline merge_blob(g)
{
	if
	:: blobs == NONE ->
		call(LEASE, 0, 0);
		if
		:: got != FULL -> blobs = host_of
		:: else
		fi
	:: else
	fi;
	if
	:: blobs != NONE ->
		worker_at = blobs;
		sector[2 * blobs + g] = g * 8 + 1;
		worker_at = NONE;
		do
		:: call(LINK_BLOB, g, blobs);
		   if
		   :: got != BUSY -> break
		   :: else
		   fi
		od
	:: else
	fi
}

bool killed;

proctype worker()
{
	mtype got;
	byte h, blobs = NONE;

	{
		session = true; /* HELLO */
#if TASKS > 0
		if
#ifndef BLOBS
		:: merge_data(0)
#endif
		:: merge_blob(0)
		fi;
#endif
#if TASKS > 1
		if
#ifndef BLOBS
		:: merge_data(1)
#endif
		:: merge_blob(1)
		fi;
#endif
		skip
	} unless {
		killed
	}
	/* what a dead process had under way has ended before its locks go */
	worker_at = NONE;
	d_step { got = 0; h = 0; blobs = 0; alive = false }
}

proctype killer()
{
	if
	:: atomic { alive -> killed = true }
	:: skip
	fi
}

/* The control thread (lib/holder/serve.c, session.c) -------------------------------------- */

/* link_one: compare and link under the region's lock */
inline link_one(g, to)
{
	if
	:: busy[g] -> out = BUSY
#ifndef M_NO_COMPARE
	:: !busy[g] && mem[g] != HOLE -> out = LOST
	:: !busy[g] && mem[g] == HOLE ->
#else
	:: !busy[g] ->
#endif
		publish(g, to);
		out = LINKED
	fi
}

/* deal_with: a data cluster */
inline link_data(g, h)
{
	d_step {
		link_one(g, DATA + h);
		if
		:: out == LINKED -> settles = h
		:: else
		fi
	}
	d_step { /* settle */
		settles = NONE;
		if
#ifdef M_SETTLE_LATE
		/* room for the rest of the run is asked for here, and there is none */
		:: out == LINKED
#endif
		:: out == BUSY
		:: else ->
			leases = leases & ~BIT(h);
			if
#ifndef M_LOST_NOT_BACK
			:: out == LOST -> add_limbo(h, 0) /* space_give_back */
#else
			:: false
#endif
			:: else
			fi
		fi
	}
}

/* deal_with: a compressed one; its host cluster is kept before it is linked */
inline link_blob(g, h)
{
	d_step {
		if
		:: leases & BIT(h) ->
#ifndef M_NO_KEEP
			kept = kept | BIT(h);
#endif
#ifndef M_KEEP_LATE
			leases = leases & ~BIT(h)
#else
			/* no room to take it out of the leases */
			skip
#endif
		:: else
		fi
	}
	d_step { link_one(g, BLOB + h) }
}

inline session_end()
{
	d_step {
		h = 0;
		do
		:: h < H ->
			if
			:: leases & BIT(h) -> leases = leases & ~BIT(h); add_limbo(h, 0)
			:: else
			fi;
			h++
		:: else -> break
		od;
		h = 0
	}
#ifndef M_UNKEEP_UNCOMMITTED
	commits = 1; /* commits_flush */
	commits == 0;
#endif
#ifndef M_UNKEEP_UNLOCKED
	atomic { !commit_lock -> commit_lock = true }
#endif
	d_step { /* space_unkeep */
		h = 0;
		do
		:: h < H ->
			if
			:: kept & BIT(h) && !ref[h] -> add_limbo(h, now)
			:: else
			fi;
			h++
		:: else -> break
		od;
		h = 0;
		if
		:: kept -> now++
		:: else
		fi;
		kept = 0
	}
#ifndef M_UNKEEP_UNLOCKED
	commit_lock = false;
#endif
	session = false
}

proctype control()
{
	byte g, h;
	mtype op, out;

end:	do
	:: atomic { request != 0 -> op = request; g = guest_of; h = host_of; request = 0 }
	   if
	   :: op == LEASE -> /* session_lease */
		atomic {
			take_cluster(h);
			if
			:: h != NONE -> leases = leases | BIT(h); out = LINKED
			:: else -> out = FULL
			fi;
			host_of = h
		}
	   :: op == LINK -> link_data(g, h)
	   :: op == LINK_BLOB -> link_blob(g, h)
	   fi;
	   d_step { answer = out; op = 0; out = 0; g = 0; h = 0 }
#ifndef M_END_WHILE_ALIVE
	:: session && !alive && !request -> session_end() /* tend: byte 1 is free */
#else
	:: session && !request -> session_end()
#endif
	:: !alive && request != 0 -> request = 0 /* nobody lives who sent it */
	od
}

/* The commit thread ------------------------------------------------------------------- */

inline forget(p)
{
	p.word[0] = NONE;
	p.word[1] = NONE;
	p.set = 0;
	p.add[0] = 0;
	p.add[1] = 0;
	p.add[2] = 0;
	p.freed[0] = 0;
	p.freed[1] = 0;
	p.freed[2] = 0
}

inline move(h)
{
	W.add[h] = P.add[h];
	W.freed[h] = P.freed[h]
}

inline raise(h)
{
	if
	:: W.set & BIT(h) -> ref[h] = 1
	:: else
	fi;
	ref[h] = ref[h] + W.add[h]
}

/* raises_undo, then space_limbo: add_unused but for what is kept */
inline lower(h)
{
	if
	:: ref[h] < W.freed[h] -> double_use = true
	:: else -> ref[h] = ref[h] - W.freed[h]
	fi
}

inline to_limbo(h)
{
	if
	:: W.freed[h] && !(kept & BIT(h)) && !ref[h] -> add_limbo(h, now)
	:: else
	fi
}

inline ripe(h)
{
	if
	:: limbo[h] < HAND ->
		k = 0;
#ifndef M_NO_EPOCH
		do /* epoch_passed, slot by slot */
		:: k < GUESTS && limbo[h] != 0 ->
			if
			:: slot[k] && slot[k] <= limbo[h] -> break
			:: else -> k++
			fi
		:: k == GUESTS || limbo[h] == 0 -> k = GUESTS; break
		od;
#else
		k = GUESTS;
#endif
		if
		:: k == GUESTS ->
			limbo[h] = HAND;
			d_step {
				check_unused(h);
#ifndef M_NO_PUNCH
				sector[2 * h] = 0;
				sector[2 * h + 1] = 0
#endif
			}
			d_step { limbo[h] = OUT; freelist = freelist | BIT(h) }
		:: else
		fi;
		k = 0
	:: else
	fi
}

#define WORK (P.word[0] != NONE || P.word[1] != NONE || writing)
#define LIMBO (limbo[0] < HAND || limbo[1] < HAND || limbo[2] < HAND)

proctype committer()
{
	byte k;

end:	do
	:: atomic {
		!commit_lock && (commits == 1 || WORK || LIMBO) ->
		commit_lock = true;
		if
		:: commits == 1 -> commits = 2
		:: else
		fi
	   }
	   if
	   :: WORK ->
		d_step { /* take */
			W.word[0] = P.word[0];
			W.word[1] = P.word[1];
			W.set = P.set;
			move(0);
			move(1);
			move(2);
			forget(P);
			writing = true
		}
		d_step { raise(0); raise(1); raise(2) } /* S1 */
		d_step { /* S2 */
			if :: W.word[0] != NONE -> disk[0] = W.word[0] :: else fi;
			if :: W.word[1] != NONE -> disk[1] = W.word[1] :: else fi
		}
		d_step { lower(0); lower(1); lower(2) } /* S3 */
		d_step {
			to_limbo(0);
			to_limbo(1);
			to_limbo(2);
			if
			:: W.freed[0] || W.freed[1] || W.freed[2] -> now++ /* epoch_next */
			:: else
			fi
		}
		d_step { forget(W); writing = false }
	   :: else
	   fi;
	   ripe(0);
	   ripe(1);
	   ripe(2);
	   d_step {
		commit_lock = false;
		if
		:: commits == 2 -> commits = 0
		:: else
		fi
	   }
	od
}

/* Always; and in the end every cluster is used, free, or was never handed out. */
proctype judge()
{
	byte h;

end:	do
	:: double_use -> assert(!double_use)
	:: stale_data -> assert(!stale_data)
	:: dirty_cluster -> assert(!dirty_cluster)
	:: timeout ->
		d_step {
			h = 0;
			do
			:: h < H ->
				if
				:: !(h >= next || FREE_NOW(h) || NAMES(disk[0], h) ||
				     NAMES(disk[1], h)) -> leaked = true
				:: else
				fi;
				h++
			:: else -> break
			od
		}
		assert(!leaked);
		break
	od
}

init {
	byte i;

	d_step {
		forget(P);
		forget(W);
		do
		:: i < H -> limbo[i] = OUT; i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < GUESTS -> at[i] = NONE; reads[i] = NONE; i++
		:: else -> break
		od;
		i = 0;
		live[0] = 2;
		live[1] = 2;
		done[0] = 2;
		done[1] = 2
#ifdef WRITTEN
		;
		/* guest cluster 0 has a cluster from before */
		mem[0] = DATA;
		disk[0] = DATA;
		ref[0] = 1;
		sector[0] = 1;
		sector[1] = 1;
		next = 1
#endif
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
