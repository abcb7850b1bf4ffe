#!/bin/sh
# redis with its password from a file, which neither its arguments nor its environment may show.
set -eu
umask 077
{
  echo "include /etc/redis/redis.conf"
  echo "maxmemory ${REDIS_MAXMEMORY}"
  echo "requirepass $(cat /secrets/redis_password)"
} >/tmp/redis.conf
exec redis-server /tmp/redis.conf
