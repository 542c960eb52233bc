# The order of locks, where a run's worker waits as it starts, applies a page, settles and ends: see LockOrder.pm.
use strict;
use warnings;

use LockOrder;

LockOrder::run(qw(start page settle finish));
