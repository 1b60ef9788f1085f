# Where docker-compose.yml listens, for a client on this machine: . deploy/compose/client.sh
# The secrets are those of fleet.env and nats.env.
export SHARDPRESS_STORE=s3://shardpress/demo SHARDPRESS_S3_ENDPOINT=http://127.0.0.1:7070
export AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=shardpress AWS_SECRET_ACCESS_KEY=objects-on-loopback
export NATS_URL=nats://client:clients-on-loopback@127.0.0.1:4222
