#!/bin/sh
cd "/srv/after-cd"
source bin/activate
exec pypnm serve
