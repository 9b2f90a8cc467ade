/* SPDX-License-Identifier: MIT */
/*
 * Group commit and power cuts: two guest clusters, three host clusters, guests that write,
 * trim and flush, the commit thread of lib/holder/commit.c with the steps of
 * lib/image/commit.c, and a disk that loses what was not synced.
 *
 * The disk is an array of places, each written in one piece (a cluster's data, a refcount, a
 * word, a header field). A place remembers every value that it may have after a power cut:
 * what the last sync made durable and all that was stored since. The cut itself is looked
 * at in every state of the model, and for every choice of those values: whatever one place
 * keeps says nothing of another, so going through the choices of the places that a check
 * looks at goes through all disks.
 *
 * FINISH of lib/holder/finish.c is here for what it makes durable and when: the header that
 * leaves the layers out is one more place, and a hole below it reads something else. What a
 * holder finds that its image's last user did not sync is here, too.
 *
 * Not here: epochs (space.pml; here a cluster counts its users); how a worker's links and the
 * guest's requests meet (link.pml).
 *
 * OPS: what each guest does. FAILS: syncs and writes that fail, in all. FRESH: the image is
 * empty, so that the first commit makes the L2 table. REOPENED: a word is in the file that
 * nobody has synced. FINISH: a worker links what the layers have, and finishes. SNAPSHOT: what
 * they have for an internal snapshot, too. NO_CUT: nobody looks at the disk, which one can do
 * for ever, so that a deadlock shows.
 */
#ifndef OPS
#define OPS 2
#endif
#ifndef GUESTS
#define GUESTS 2
#endif
#ifndef FAILS
#define FAILS 1
#endif

#define G 2 /* guest clusters */
#define H 3 /* host clusters; without FRESH, 0 has guest cluster 0 and is not of ours */

/* Places on the disk */
#define DATA 0 /* + h: content, the id of a write; 0: zeros */
#define REF 3 /* + h: refcount */
#define WORD 6 /* + g: 0 hole, 1 zero, 2 + h data */
#define L1 8 /* 0: no L2 table */
#define TREF 9 /* refcount of the L2 table */
#define MARK 10 /* our header extension: sweep from this host cluster on; 3: none */
#define BLOCK 11 /* the refcount block that counts host cluster 2; 0: never written */
#define TABLE 12 /* the word of the refcount table that shows it */
#define HEAD 13 /* 1: the header leaves the layers out */
#define SNAP 14 /* an internal snapshot's word of guest cluster 1, as WORD */
#define PLACES 15

#define HOLE 0
#define ZERO 1
#define NONE 255

#define BIT(n) (1 << (n))

typedef place {
	byte now; /* in the page cache */
	byte may; /* values after a power cut: a bit each */
	byte since; /* the same, when the sync that is under way is done */
}

place disk[PLACES];
bool syncing;

/* A commit's changes: struct pending of lib/holder/active.h */
typedef pending {
	byte word[G]; /* NONE: no change */
	byte raises, freed; /* host clusters */
	bool table; /* an L2 table is made */
}

pending P, W; /* active.pending, active.writing */
bool writing; /* active.writing is there */
byte mem[G]; /* words in memory (region_word) */
bool busy[G]; /* region_begin */
bool touched; /* active.touched */
bool torn, synced; /* active.torn, active.synced */
bool alone; /* commits.writing is held */
byte words; /* of commits_words, as flush[] */
byte next; /* alloc.next: host clusters from here on were never handed out */
byte start; /* alloc.start */
byte freelist, limbo; /* space.free, space.limbo */
byte users[H]; /* requests that write there (space.pml has epochs instead) */
byte fails = FAILS;
bool broken; /* commits.broken */
bool committing; /* between begun and done */
/* Of each guest: 1 asked, 2 a commit that started later runs, 3 it is good, 4 it failed */
byte flush[GUESTS];

/* What the guests know, to judge by */
byte ids = 3; /* 0: zeros; 1: in host cluster 0 from before; 2: what the layers say */
byte trims; /* ids that mean zero */
byte live[G]; /* ids that a read may return now */
byte done[G]; /* those of requests that have ended */
byte safe[G]; /* ids that may be there after a power cut */

bool lost_write, ref_too_low, leak_lost, double_use, bad_table;

/* Disk ------------------------------------------------------------------------ */

/* cache_write, write_at */
inline store(at, v)
{
	disk[at].now = v;
	disk[at].may = disk[at].may | BIT(v);
	if
	:: syncing -> disk[at].since = disk[at].since | BIT(v)
	:: else
	fi
}

/* image_sync: makes durable what was stored before it began */
inline sync(err)
{
	d_step {
		k = 0;
		do
		:: k < PLACES -> disk[k].since = BIT(disk[k].now); k++
		:: else -> break
		od;
		syncing = true
	}
	if
	:: d_step {
		k = 0;
		do
		:: k < PLACES ->
			disk[k].may = disk[k].since;
			disk[k].since = 0;
			k++
		:: else -> break
		od;
		syncing = false
	   }
	:: d_step {
		fails > 0 ->
		fails--;
		k = 0;
		do
		:: k < PLACES -> disk[k].since = 0; k++
		:: else -> break
		od;
		syncing = false;
#ifndef M_SYNC_ERROR_IGNORED
		broken = true; /* commits_break */
		err = true
#endif
	   }
	fi
}

/* Guests ------------------------------------------------------------------------ */

/* A request begins to change g into id. */
inline begin_change(g, id)
{
	seen = done[g];
	live[g] = live[g] | BIT(id);
	safe[g] = safe[g] | BIT(id)
}

/* It has ended: what had ended before it began is over. */
inline end_change(g, id)
{
	live[g] = live[g] & ~seen;
	done[g] = (done[g] & ~seen) | BIT(id)
}

/* space_take: *out is NONE when there is no room */
inline take_cluster(out)
{
	if
	:: freelist & BIT(0) -> out = 0
	:: freelist & BIT(1) -> out = 1
	:: freelist & BIT(2) -> out = 2
	:: !freelist && next < H -> out = next; next++
	:: !freelist && next >= H -> out = NONE
	fi;
	if
	:: out != NONE ->
		freelist = freelist & ~BIT(out);
		if
		:: users[out] || disk[DATA + out].now ||
		   mem[0] == 2 + out || mem[1] == 2 + out ||
		   disk[SNAP].now == 2 + out -> double_use = true
		:: else
		fi
	:: else
	fi
}

/* active_ready, active_publish: region lock and publish held, so one step */
inline publish(g, to, fresh, host)
{
	if
	:: !disk[L1].now && !P.table && !(writing && W.table) -> P.table = true
	:: else
	fi;
	if
	:: fresh -> P.raises = P.raises | BIT(host)
	:: else
	fi;
	if
	:: mem[g] >= 2 && mem[g] != to -> /* free_old */
#ifdef M_FREE_AT_PUBLISH
		freelist = freelist | BIT(mem[g] - 2);
		disk[DATA + mem[g] - 2].now = 0;
#endif
		P.freed = P.freed | BIT(mem[g] - 2)
	:: else
	fi;
	P.word[g] = to;
	mem[g] = to
}


/* guest_write of a whole cluster (lib/holder/write.c) */
inline guest_write(g)
{
	atomic {
		!busy[g]; /* look: region_wait */
		id = ids;
		ids++;
		begin_change(g, id);
		own = mem[g] >= 2; /* in_place */
		if
		:: own -> h = mem[g] - 2; users[h]++
		:: else -> busy[g] = true /* first_write: region_begin */
		fi
	}
	if
	:: own -> /* no lock is held: write_at, then touched */
#ifdef M_TOUCHED_FIRST
		touched = true;
		d_step { store(DATA + h, id) }
#else
		d_step { store(DATA + h, id) }
		touched = true;
#endif
		d_step { users[h]--; end_change(g, id); h = 0 }
	:: else ->
		atomic { take_cluster(h) }
		if
		:: h == NONE -> /* the request fails; nothing was written */
			d_step { busy[g] = false; live[g] = live[g] & ~BIT(id); h = 0 }
		:: else ->
#ifndef M_DATA_AFTER_PUBLISH
			d_step { store(DATA + h, id) }
			d_step {
				publish(g, 2 + h, true, h);
				busy[g] = false;
				end_change(g, id);
				h = 0
			}
#else
			d_step { publish(g, 2 + h, true, h) }
			d_step {
				store(DATA + h, id);
				busy[g] = false;
				end_change(g, id);
				h = 0
			}
#endif
		fi
	fi
}

/* zero_v3 of a whole cluster (lib/holder/discard.c): region locked, one step */
inline guest_trim(g)
{
	d_step {
		!busy[g]; /* region_wait */
		id = ids;
		ids++;
		trims = trims | BIT(id);
		begin_change(g, id);
		if
		:: mem[g] != ZERO ->
			publish(g, ZERO, false, 0)
		:: else
		fi;
		touched = true;
		end_change(g, id)
	}
}

/* commits_flush: what had ended before it came is safe when it succeeds */
inline guest_flush()
{
	d_step {
		over[0] = safe[0] & ~live[0];
		over[1] = safe[1] & ~live[1];
#ifdef M_FLUSH_JOINS
		/* a commit that runs already is as good */
		flush[me] = (committing -> 2 : 1)
#else
		flush[me] = 1
#endif
	}
	atomic {
		flush[me] >= 3;
		if
		:: flush[me] == 3 && !broken ->
			safe[0] = safe[0] & ~over[0];
			safe[1] = safe[1] & ~over[1]
		:: else
		fi;
		flush[me] = 0;
		over[0] = 0;
		over[1] = 0
	}
}

proctype guest(byte me)
{
	byte left = OPS, g, h, id, seen, over[G];
	bool own;

end:	do
	:: left > 0 && !broken ->
		left--;
		if
		:: g = 0; guest_write(g)
		:: g = 1; guest_write(g)
		:: g = 0; guest_trim(g)
		:: g = 1; guest_trim(g)
		:: guest_flush()
		fi;
		d_step { g = 0; id = 0; seen = 0; own = false }
	:: left == 0 || broken -> break
	od
}

/* The commit thread ---------------------------------------------------------------- */

#define EMPTY(p) (p.word[0] == NONE && p.word[1] == NONE && !p.table)

/* set_mark: durable before anything of ours has a refcount, and below what is freed */
inline set_mark(err)
{
	d_step {
		mark = (disk[MARK].now < start -> disk[MARK].now : start);
#ifndef M_MARK_NOT_LOWERED
		if
		:: W.freed & 1 -> mark = 0
		:: else
		fi;
#endif
#ifdef M_NO_MARK
		mark = disk[MARK].now
#endif
	}
	if
	:: mark != disk[MARK].now ->
		d_step { store(MARK, mark) } /* image_rehead, one sector */
		sync(err)
	:: else
	fi;
	mark = 0
}

/* refs_grow: a refcount block complete, sync, then the word that shows it */
inline grow(raised, err)
{
	if
	:: (raised) & BIT(2) && !disk[TABLE].now ->
		d_step { store(BLOCK, 1) }
#ifndef M_S0_SYNC
		sync(err);
#endif
		if
		:: !err -> d_step { store(TABLE, 1) }
		:: else
		fi
	:: else
	fi
}

/* raises_write; also with no space for it, which leaves all of W for another try */
inline raise(err)
{
	if
	:: d_step {
#ifndef M_NO_RAISE
		if :: W.raises & BIT(0) -> store(REF + 0, 1) :: else fi;
		if :: W.raises & BIT(1) -> store(REF + 1, 1) :: else fi;
		if :: W.raises & BIT(2) -> store(REF + 2, 1) :: else fi;
		if :: W.table -> store(TREF, 1) :: else fi
#else
		skip
#endif
	   }
	:: d_step { fails > 0 -> fails--; err = true }
	fi
}

/* changes_write of the words that W has; half: no space after the first one */
inline put_words(err)
{
	d_step {
		if
		:: W.word[0] != NONE -> store(WORD + 0, W.word[0])
		:: else
		fi
	}
	if
	:: d_step {
		if
		:: W.word[1] != NONE -> store(WORD + 1, W.word[1])
		:: else
		fi
	   }
	:: d_step { fails > 0 -> fails--; err = true }
	fi
}

/* S3, give_back: raises_undo, space_limbo */
inline lower()
{
	if :: W.freed & BIT(0) -> store(REF + 0, 0) :: else fi;
	if :: W.freed & BIT(1) -> store(REF + 1, 0) :: else fi;
	if :: W.freed & BIT(2) -> store(REF + 2, 0) :: else fi
}

/* write_pending, commit_write */
inline write_pending(err)
{
	set_mark(err);
	/* S0 */
	if :: !err -> grow(W.raises, err) :: else fi;
	/* S1 */
	if :: !err -> raise(err) :: else fi;
	if
	:: !err && W.table -> put_words(err) /* a complete new table */
	:: else
	fi;
#ifdef M_LOWER_EARLY
	if :: !err -> d_step { lower() } :: else fi;
#endif
#ifndef M_S1_SYNC
	if :: !err -> sync(err) :: else fi;
#endif
	/* S2 */
	if
	:: !err && W.table -> d_step { store(L1, 1) }
	:: !err && !W.table -> put_words(err)
	:: else
	fi;
#ifdef M_FREE_BEFORE_S2
	if
	:: !err -> d_step { freelist = freelist | W.freed;
			if :: W.freed & BIT(0) -> store(DATA + 0, 0) :: else fi;
			if :: W.freed & BIT(1) -> store(DATA + 1, 0) :: else fi;
			if :: W.freed & BIT(2) -> store(DATA + 2, 0) :: else fi;
			W.freed = 0 }
	:: else
	fi;
#endif
#ifndef M_S2_SYNC
	if :: !err -> sync(err) :: else fi
#endif
}

inline forget(p)
{
	p.word[0] = NONE;
	p.word[1] = NONE;
	p.raises = 0;
	p.freed = 0;
	p.table = false
}

/* commit_once */
inline commit_once(err)
{
#ifndef M_TOUCHED_LATE
	d_step { dirty = touched; touched = false } /* atomic_exchange */
#else
	dirty = touched;
#endif
	d_step { dirty = dirty || torn; torn = false }
	d_step { /* take, under publish */
		if
		:: !writing && !(EMPTY(P) && !P.freed) ->
			W.word[0] = P.word[0];
			W.word[1] = P.word[1];
			W.raises = P.raises;
			W.freed = P.freed;
			W.table = P.table;
			forget(P);
			writing = true
		:: else
		fi
	}
	if
	:: writing -> write_pending(err)
	:: !writing && (dirty || !synced) -> sync(err) /* sync_only */
	:: else
	fi;
	if :: !err -> synced = true :: else fi;
	if
	:: err -> d_step { touched = true; torn = true }
	:: !err && writing ->
		d_step { /* give_back */
#ifndef M_LOWER_EARLY
			lower();
#endif
			limbo = limbo | W.freed
		}
		d_step { forget(W); writing = false } /* let_go */
	:: else
	fi;
#ifdef M_TOUCHED_LATE
	if :: !err -> touched = false :: else fi;
#endif
	dirty = false
}

/* space_tend: what nobody uses is punched and free */
inline tend()
{
	k = 0;
	do
	:: k < H ->
		if
		:: limbo & BIT(k) && !users[k] ->
			d_step { /* ripe: out of the limbo; the punch; the free list */
				limbo = limbo & ~BIT(k);
				store(DATA + k, 0);
				freelist = freelist | BIT(k)
			}
		:: else
		fi;
		k++
	:: else -> break
	od;
	k = 0
}

/* commit_now */
inline commit_now(err)
{
	if
	:: broken -> err = true
	:: else ->
		do
		:: d_step { late = writing }
		   commit_once(err);
#ifdef M_NO_LATE
		   break
#else
		   if
		   :: late && !err
		   :: else -> break
		   fi
#endif
		od
	fi
}

#ifdef M_FIRST_FLUSH
#define UNSYNCED touched
#else
#define UNSYNCED (touched || !synced)
#endif

#ifdef M_TORN
#define TORN false
#else
#define TORN torn
#endif

#ifdef FINISH
#define LOCK_WRITING atomic { !alone -> alone = true }
#define UNLOCK_WRITING alone = false
#else
#define LOCK_WRITING skip /* the commit thread is the only one */
#define UNLOCK_WRITING skip
#endif

proctype committer()
{
	byte k, mark;
	bool err, late, dirty, asked;

end:	do
	:: atomic {
		/* wait_for_work: a flush, or the second is over, or it is due */
#ifndef M_FLUSH_UNHEARD
		flush[0] == 1 || flush[GUESTS - 1] == 1 ||
#endif
		writing || !EMPTY(P) || limbo || words == 1 ->
		asked = flush[0] == 1 || flush[GUESTS - 1] == 1;
		if :: flush[0] == 1 -> flush[0] = 2 :: else fi;
		if :: flush[GUESTS - 1] == 1 -> flush[GUESTS - 1] = 2 :: else fi;
		if :: words == 1 -> words = 2 :: else fi;
		committing = true
	   }
	   LOCK_WRITING;
	   if /* has_work */
	   :: writing || !EMPTY(P) || TORN || (asked && UNSYNCED) -> commit_now(err)
	   :: else
	   fi;
	   tend();
	   UNLOCK_WRITING;
	   d_step {
		/* the good one serves those, too, who have not woken from a bad one */
		k = 0;
		do
		:: k < GUESTS ->
			if
			:: flush[k] == 2 || (flush[k] == 4 && !err) ->
				flush[k] = (err -> 4 : 3)
			:: else
			fi;
			k++
		:: else -> break
		od;
		k = 0;
		if :: words == 2 -> words = (err -> 4 : 3) :: else fi;
		committing = false;
		err = false;
		late = false
	   }
	   if
	   :: broken -> break /* every later flush fails: nothing new to see */
	   :: else
	   fi
	od;
end_gone:	do /* broken: commit_now refuses */
	:: atomic { flush[0] == 1 || flush[0] == 2 -> flush[0] = 4 }
	:: atomic { flush[GUESTS - 1] == 1 || flush[GUESTS - 1] == 2 ->
		flush[GUESTS - 1] = 4 }
	:: atomic { words == 1 || words == 2 -> words = 4 }
	:: (false)
	od
}

/* The worker, and FINISH --------------------------------------------------------------- */

/* What the layers say of g is copied, and linked if the guest has written nothing yet. */
inline link(g)
{
	if
	:: mem[g] == HOLE ->
		atomic { take_cluster(h) }
		if
		:: h != NONE ->
			d_step { store(DATA + h, 2) }
			d_step {
				!busy[g]; /* else it is asked again later */
				if
				:: mem[g] == HOLE -> publish(g, 2 + h, true, h)
				:: else -> limbo = limbo | BIT(h)
				fi
			}
		:: else
		fi;
		h = 0
	:: else
	fi
}

#ifdef M_LAST_USER
#define SYNCED true
#else
#define SYNCED synced
#endif

/* commit_words: under commits.writing, for who needs the words alone */
inline commit_words(err)
{
	if
	:: !broken && !writing && EMPTY(P) && !TORN && SYNCED
	:: else -> commit_now(err)
	fi
}

/* commit_links, of one word; it fails half way when there is no space for another */
inline link_snapshot(err)
{
	LOCK_WRITING;
	atomic { take_cluster(h) }
	if
	:: broken || h == NONE -> err = true
	:: else -> d_step { store(DATA + h, 2) }
	fi;
	if
	:: !err && start < disk[MARK].now ->
		d_step { store(MARK, start) }
		sync(err)
	:: else
	fi;
	if :: !err -> grow(BIT(h), err) :: else fi;
	if
	:: !err ->
		d_step { store(REF + h, 1) }
		sync(err)
	:: else
	fi;
	if
	:: !err ->
		d_step { store(SNAP, 2 + h) }
		if
		:: sync(err)
		:: d_step { fails > 0 -> fails--; torn = true }
		   /* the next run finds it in the file */
		fi
	:: else
	fi;
	h = 0;
	UNLOCK_WRITING
}

proctype worker()
{
	byte h, k, mark;
	bool err, late, dirty;

#ifdef SNAPSHOT
	if
	:: link_snapshot(err)
	:: skip
	fi;
#endif
	if
	:: link(0); link(1)
	:: skip /* it was told BUSY, or that the holder will do it */
	fi;
#ifndef M_NO_WORDS
	words = 1;
	words >= 3;
	err = err || words == 4;
#endif
	/* session_complete: what is missing is filled */
	link(0);
	link(1);
#ifdef SNAPSHOT
	if
	:: !err && disk[SNAP].now == HOLE -> link_snapshot(err)
	:: else
	fi;
#endif
	LOCK_WRITING;
	if
	:: !err && mem[0] != HOLE && mem[1] != HOLE ->
#if !defined(M_NO_WORDS) && !defined(M_WORDS_BEFORE)
		commit_words(err);
#endif
		if
		:: !err ->
			d_step { store(HEAD, 1) } /* image_rehead */
			sync(err)
		:: else
		fi
	:: else
	fi;
	UNLOCK_WRITING
}

/* The power cut ---------------------------------------------------------------------- */

/* May a disk of now show guest cluster g with the word w, and content that is not safe? */
inline look_at_word(g, w)
{
	if
	:: w == HOLE && (!(safe[g] & BIT(2)) || disk[HEAD].may & 2) -> lost_write = true
	:: w == ZERO && !(safe[g] & trims) -> lost_write = true
	:: w >= 2 ->
		leads[w - 2] = leads[w - 2] + 1;
		c = 0;
		do
		:: c < 8 ->
			if
			:: disk[DATA + w - 2].may & BIT(c) &&
			   !(c == 0 -> safe[g] & trims : safe[g] & BIT(c)) ->
				lost_write = true
			:: else
			fi;
			c++
		:: else -> break
		od;
		c = 0
	:: else
	fi
}

/* It reads what the layers say, whatever the guest does. */
inline look_at_snapshot()
{
	if
	:: disk[SNAP].may & BIT(HOLE) && disk[HEAD].may & 2 -> lost_write = true
	:: else
	fi;
	w = 2;
	do
	:: w < 2 + H ->
		if
		:: disk[SNAP].may & BIT(w) ->
			leads[w - 2] = leads[w - 2] + 1;
			if
			:: disk[DATA + w - 2].may & ~BIT(2) -> lost_write = true
			:: else
			fi
		:: else
		fi;
		w++
	:: else -> break
	od
}

proctype power_cut()
{
	byte g, w, c, h, leads[H];

end:	do
	:: d_step {
		g = 0;
		do
		:: g < G ->
			/* no L2 table, no word */
			if
			:: disk[L1].may & 1 && (!(safe[g] & BIT(2)) || disk[HEAD].may & 2) ->
				lost_write = true
			:: else
			fi;
			w = 0;
			do
			:: w < 2 + H ->
				if
				:: disk[L1].may & 2 && disk[WORD + g].may & BIT(w) ->
					look_at_word(g, w)
				:: else
				fi;
				w++
			:: else -> break
			od;
			g++
		:: else -> break
		od;
#ifdef SNAPSHOT
		look_at_snapshot();
#endif
		h = 0;
		do
		:: h < H ->
			if
			/* counted too low, or not counted at all */
			:: leads[h] && disk[REF + h].may & 1 -> ref_too_low = true
			:: leads[h] > 1 -> ref_too_low = true
			:: leads[h] && h == 2 && disk[TABLE].may & 1 -> ref_too_low = true
			:: else
			fi;
			if
			/* a leak, if no word leads there, and the next open sweeps it not */
			:: disk[REF + h].may & 2 && disk[MARK].may >> (h + 1) &&
			   disk[SNAP].may & ~BIT(2 + h) &&
			   (disk[L1].may & 1 || (disk[WORD + 0].may & ~BIT(2 + h) &&
						 disk[WORD + 1].may & ~BIT(2 + h))) ->
				leak_lost = true
			:: else
			fi;
			h++
		:: else -> break
		od;
		if
		:: disk[L1].may & 2 && disk[TREF].may & 1 -> ref_too_low = true
		:: else
		fi;
		/* a refcount block that is shown is complete */
		if
		:: disk[TABLE].may & 2 && disk[BLOCK].may & 1 -> bad_table = true
		:: else
		fi;
		g = 0; w = 0; c = 0; h = 0; leads[0] = 0; leads[1] = 0; leads[2] = 0
	   }
	   assert(!lost_write);
	   assert(!ref_too_low);
	   assert(!bad_table);
	   assert(!leak_lost);
	   assert(!double_use)
	od
}

init {
	byte i;

	d_step {
		do
		:: i < PLACES -> disk[i].now = 0; disk[i].may = 1; i++
		:: else -> break
		od;
		i = 0;
		forget(P);
		forget(W);
		disk[MARK].now = 3;
		disk[MARK].may = BIT(3);
		live[0] = BIT(2);
		live[1] = BIT(2);
#ifndef FRESH
		/* guest cluster 0 has host cluster 0 */
		live[0] = BIT(1);
		disk[DATA].now = 1;
		disk[DATA].may = BIT(1);
		disk[REF].now = 1;
		disk[REF].may = BIT(1);
		disk[WORD].now = 2;
		disk[WORD].may = BIT(2);
		disk[L1].now = 1;
		disk[L1].may = BIT(1);
		disk[TREF].now = 1;
		disk[TREF].may = BIT(1);
		mem[0] = 2;
		start = 1;
		next = 1;
#endif
		safe[0] = live[0];
		safe[1] = live[1];
#ifdef REOPENED
		/* and 1 has host cluster 1; its word is in the file, and not durable */
		live[1] = BIT(1);
		safe[1] = BIT(1) | BIT(2);
		disk[DATA + 1].now = 1;
		disk[DATA + 1].may = BIT(1);
		disk[REF + 1].now = 1;
		disk[REF + 1].may = BIT(1);
		disk[WORD + 1].now = 3;
		disk[WORD + 1].may = BIT(3) | BIT(HOLE);
		disk[MARK].now = 1;
		disk[MARK].may = BIT(1);
		mem[1] = 3;
		start = 2;
		next = 2;
#else
		synced = true; /* there is nothing else */
#endif
		done[0] = live[0];
		done[1] = live[1]
	}
	atomic {
		i = 0;
		do
		:: i < GUESTS -> run guest(i); i++
		:: else -> break
		od;
		run committer();
#ifdef FINISH
		run worker();
#endif
#ifndef NO_CUT
		run power_cut()
#endif
	}
}
