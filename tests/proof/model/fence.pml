/* SPDX-License-Identifier: MIT */
/*
 * Owners come and go: a holder that may be killed at any moment, two workers for it, one
 * after the other, and the next owner of the image (a holder, QEMU, an offline worker), to
 * whom every host cluster belongs that no word names, the leases of the old worker too.
 *
 * The lock bytes on the image keep the next owner out until the worker is gone
 * (lib/job/setup.c lock_held, lib/image/lock.c, lib/holder/holder.c open_and_lock). Byte 0 of
 * the page tells the worker that its holder died (lib/page/connect.c, mailbox_fence), byte 1
 * tells the holder that its worker did (lib/holder/serve.c tend, session.c session_end).
 *
 * One host cluster is enough to fight for. Besides the assertions: whatever happens, the
 * next owner gets in once the holder is dead.
 */
#define NOBODY 0
#define NEXT 3 /* workers are 1 and 2 */

bool byte0 = true; /* of the page: the holder lives */
byte byte1; /* of the page: the worker that lives */
byte asks; /* the worker that wants a lease; the answer sets it to 0 */

/* Bytes 101 and 201 of the image, and who has them */
bool holder_locks = true, worker_locks[3], next_locks;

byte session; /* the holder's, of this worker */
byte user; /* of the host cluster */
bool open; /* the next owner has the image */
bool gone[3]; /* this worker is killed, or ends itself */

bool two_owners, stranger;

/* A piece of the copy: who is it that the cluster belongs to? */
inline write_lease(n)
{
	if
	:: user != n -> stranger = true
	:: else
	fi
}

inline lock(n)
{
#ifndef M_NO_LOCK
	worker_locks[n] = true
#else
	skip
#endif
}

proctype worker(byte n)
{
	{
		/* mailbox_connect: somebody lives there, and no other requester */
#ifndef M_TWO_REQUESTERS
		atomic { byte0 && byte1 == 0 -> byte1 = n }
#else
		atomic { byte0 -> byte1 = n }
#endif
#ifndef M_LATE_LOCK
		lock(n); /* lock_take_untested */
#endif
		do
		:: asks = n; /* LEASE */
		   asks != n && session == n && user == n; /* no answer from the dead */
#ifdef M_LATE_LOCK
		   lock(n);
#endif
		   write_lease(n);
		   write_lease(n);
		   atomic { /* LINK, RELEASE: nobody's to write, and the next one */
			byte0 ->
			user = (user == n -> NOBODY : user)
		   }
		od
	} unless {
		gone[n]
	};
#ifdef M_WRITES_OUTLIVE
	/* asynchronous I/O: what was under way goes on without locks */
	worker_locks[n] = false;
	write_lease(n);
#endif
	/* what was under way has ended before a dead process's locks go */
	atomic {
		worker_locks[n] = false;
		byte1 = (byte1 == n -> 0 : byte1);
		asks = (asks == n -> 0 : asks)
	}
}

/* kill -9 at any time; and the thread that looks at byte 0 every 20 ms */
proctype fence(byte n)
{
	if
	:: gone[n] = true
#ifndef M_NO_FENCE
	:: !byte0 -> gone[n] = true
#else
	:: !byte0 -> false
#endif
	fi
}

/* The control thread, and its death */
proctype holder()
{
	do
	:: atomic {
		/* HELLO ends what an older session still had */
		asks && session != asks ->
		user = (user == session -> NOBODY : user);
		session = asks
	   }
	:: atomic {
		asks && session == asks && user == NOBODY ->
		user = asks;
		asks = 0
	   }
	:: atomic {
#ifndef M_END_WHILE_ALIVE
		session && byte1 != session -> /* tend: byte 1 is free, or another's */
#else
		session ->
#endif
		user = (user == session -> NOBODY : user);
		session = 0
	   }
	:: break /* kill -9 */
	od;
	atomic { byte0 = false; holder_locks = false }
}

#define CONFLICT (holder_locks || worker_locks[1] || worker_locks[2])

/* lock_take: first the bytes, then the look who else has them */
proctype next()
{
	do
	:: next_locks = true;
#ifndef M_NO_TEST
	   if
	   :: CONFLICT -> next_locks = false
	   :: !CONFLICT -> break
	   fi
#else
	   break
#endif
	od;
	atomic {
		open = true;
		/* sweeps, and hands out what no word names */
		user = NEXT;
		if
		:: byte0 -> two_owners = true
		:: else
		fi
	}
}

proctype judge()
{
end:	do
	:: assert(!two_owners);
	   assert(!stranger)
	od
}

init {
	atomic {
		run holder();
		run worker(1);
		run worker(2);
		run fence(1);
		run fence(2);
		run next();
		run judge()
	}
}

ltl next_gets_in { [] (!byte0 -> <> open) }
